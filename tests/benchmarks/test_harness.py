"""What every suite measures with: turns, pairing, the environment card, results as files. No times."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch, busy_cpu_s, cpu_flags
from benchmarks.harness.results import read_result, write_result
from benchmarks.harness.timing import Spread, interleaved, laps_of, paired_speedups


def test_a_slow_spell_in_both_calls_of_a_turn_leaves_the_ratio_alone() -> None:
    quiet, disturbed = (
        paired_speedups([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]),
        paired_speedups([2.0, 9.0, 2.0], [1.0, 4.5, 1.0]),
    )
    np.testing.assert_allclose(disturbed, quiet)


def test_turns_that_do_not_match_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="seen 2 and 1 turns"):
        paired_speedups([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        paired_speedups([], [])


def test_cpu_flags_are_those_that_tell_something(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("model name\t: X\nflags\t\t: fpu amx_int8 sse avx2\nflags\t\t: fpu\n")
    (tmp_path / "arm").write_text("Features\t: fp asimd i8mm\n")
    assert cpu_flags(tmp_path / "x86") == ("avx2", "amx_int8")
    assert cpu_flags(tmp_path / "arm") == ("asimd", "i8mm")
    assert cpu_flags(tmp_path / "none") == ()


def test_busy_time_leaves_out_idling_and_guests(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  10 20 30 4000 500 60 70 80 900 1000\ncpu0 1 2 3\n")
    assert busy_cpu_s(tmp_path / "stat") == (10 + 20 + 30 + 60 + 70 + 80) / os.sysconf("SC_CLK_TCK")
    assert busy_cpu_s(tmp_path / "none") is None


def test_card_names_command_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["trial", "--out", "/somewhere/else.json", "2"])
    card = Watch(2).card()
    assert card.command.endswith(" --out else.json 2")
    assert card.num_threads == 2
    assert card.others_cpu_share is None or card.others_cpu_share >= 0
    assert "torch" in card.versions


def test_all_have_their_turn_in_each_round_in_an_order_drawn_anew_and_untimed_rounds_are_left_out() -> None:
    calls: list[str] = []

    def call(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ways = {name: lambda name=name: call(name) for name in ("eager", "onnx")}
    found = interleaved(ways, 20, random.Random(0), num_untimed=1)
    rounds = [tuple(calls[at : at + 2]) for at in range(0, len(calls), 2)]
    assert set(rounds) == {("eager", "onnx"), ("onnx", "eager")}
    assert len(rounds) == 21
    assert sorted(found["eager"] + found["onnx"]) == [float(number) for number in range(3, 43)]


def test_a_result_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu.json"
    write_result(Spread(1.0, 2.0, 3.0), path)
    assert read_result(path, Spread) == Spread(1.0, 2.0, 3.0)
    path.write_bytes(path.read_bytes().replace(b'"p10"', b'"p0":1,"p10"'))
    with pytest.raises(msgspec.ValidationError, match="unknown field `p0`"):
        read_result(path, Spread)


def test_ways_are_timed_in_turns_and_one_with_other_vectors_is_refused() -> None:
    right, other = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    laps = laps_of({"a": lambda: right, "b": lambda: right}, seconds=0.001)
    assert len(laps["a"]) == len(laps["b"]) >= 5
    with pytest.raises(SystemExit, match=r"b gives other vectors: lowest cosine 0\.00000"):
        laps_of({"a": lambda: right, "b": lambda: other}, seconds=0.001)


def test_a_functions_arguments_are_the_commands_options() -> None:
    seen: list[object] = []

    def script(out: Path, rounds: int = 3) -> None:
        seen.extend((out, rounds))

    with pytest.raises(SystemExit, match=r"^0$"):
        run(script, ["results", "--rounds", "4"])
    assert seen == [Path("results"), 4]
