"""The reference benchmark's turns, pairing, parity and report, on fake engines and a fake clock. No times."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.harness.environment import Environment, Watch, busy_cpu_s, cpu_flags
from benchmarks.harness.results import read_result, write_result
from benchmarks.harness.statistics import paired_speedups
from benchmarks.reference.interleave import Batch, Engine, Laps, Schedule, take_turns, warm_up
from benchmarks.reference.report import ReferenceReport, cpu_slug, engine_timings, table_of
from benchmarks.reference.workload import pick_captions
from mmalign_export.errors import ParityError
from mmalign_runtime.engine.session import Feeds

BOUND = 1e-4


def batch(size: int) -> Batch:
    vectors = np.eye(4, dtype=np.float32)[np.arange(size) % 4]
    return Batch("image", {"pixel_values": vectors}, vectors)


def engine(name: str, calls: list[tuple[str, int]], offset: float = 0.0) -> Engine:
    def run(feeds: Feeds) -> np.ndarray:
        calls.append((name, len(feeds["pixel_values"])))
        return feeds["pixel_values"].astype(np.float32) + np.float32(offset)

    return Engine(name, "image", run)


def ticking(*ticks: float) -> Iterator[float]:
    """A clock: every timed call takes the next of the given seconds, from the start again."""
    now = 0.0
    while True:
        for tick in ticks:
            yield now
            now += tick
            yield now


def laps(seconds: dict[str, list[float]]) -> Laps:
    return Laps(batch(2), seconds, dict.fromkeys(seconds, 1e-7))


def environment() -> Environment:
    return Environment(
        date="2026-01-01T00:00:00+00:00",
        command="python benchmarks/reference/run.py",
        cpu="Some Processor",
        cpu_flags=("avx2",),
        num_cpus=2,
        num_threads=2,
        platform="Linux",
        python="3.11",
        versions={"torch": "2", "onnxruntime": "1"},
        load_average_start=0.1,
        load_average_end=1.9,
        others_cpu_share=None,
    )


def report() -> ReferenceReport:
    timings = engine_timings([laps({"eager": [0.02, 0.04], "onnx": [0.01, 0.02]})], "eager")
    return ReferenceReport(environment=environment(), baseline="eager", num_rounds=2, timings=timings)


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


def test_timing_holds_percentiles_throughput_and_speed() -> None:
    seconds = {"eager": [0.1 * n for n in range(1, 12)], "onnx": [0.05 * n for n in range(1, 12)]}
    eager, onnx = engine_timings([laps(seconds)], "eager")
    assert (eager.p50_ms, eager.p90_ms, eager.p99_ms, eager.num_calls) == (600.0, 1000.0, 1090.0, 11)
    assert eager.items_per_s == round(2 * 11 / 6.6, 3)
    assert (eager.speedup, onnx.speedup, onnx.speedup_p10, onnx.speedup_p90) == (1.0, 2.0, 2.0, 2.0)
    assert (onnx.input_shape, onnx.max_abs_difference) == ((2, 4), 1e-7)


def test_every_engine_has_one_call_a_turn_each_after_a_lead_in_of_the_smallest_batch() -> None:
    calls: list[tuple[str, int]] = []
    engines = [engine("eager", calls), engine("onnx", calls)]
    started = warm_up(engines, [batch(1), batch(3)], num_calls=2, bound=BOUND)
    assert calls == [("eager", 1)] * 2 + [("onnx", 1)] * 2 + [("eager", 3)] * 2 + [("onnx", 3)] * 2
    calls.clear()
    take_turns(engines, started, Schedule(num_rounds=5, turns={1: 2}))
    assert [len(lap.seconds[name]) for lap in started for name in ("eager", "onnx")] == [10, 10, 5, 5]
    lead_ins, timed = calls[::2], calls[1::2]
    assert lead_ins == [(name, 1) for name, _ in timed]
    assert sorted(timed) == sorted([("eager", 1), ("onnx", 1)] * 10 + [("eager", 3), ("onnx", 3)] * 5)


def test_order_within_a_turn_changes_and_is_the_same_for_the_same_seed() -> None:
    calls: list[tuple[str, int]] = []
    engines = [engine("eager", calls), engine("onnx", calls)]
    orders = []
    for _ in range(2):
        started = warm_up(engines, [batch(1)], num_calls=1, bound=BOUND)
        calls.clear()
        take_turns(engines, started, Schedule(num_rounds=20, turns={}))
        orders.append([name for name, _ in calls[1::2]])
    assert orders[0] == orders[1]
    assert {tuple(orders[0][turn : turn + 2]) for turn in range(0, 40, 2)} == {("eager", "onnx"), ("onnx", "eager")}


def test_only_the_timed_call_is_timed() -> None:
    calls: list[tuple[str, int]] = []
    engines = [engine("eager", calls)]
    started = warm_up(engines, [batch(1)], num_calls=1, bound=BOUND)
    clock = ticking(0.25, 0.5)
    take_turns(engines, started, Schedule(num_rounds=2, turns={}), clock=lambda: next(clock))
    assert started[0].seconds == {"eager": [0.25, 0.5]}


@pytest.mark.parametrize("offset", [1e-3, float("nan")])
def test_an_engine_that_computes_something_else_is_not_timed(offset: float) -> None:
    with pytest.raises(ParityError, match="engine 'onnx' on the image batch of 2"):
        warm_up([engine("eager", []), engine("onnx", [], offset)], [batch(2)], num_calls=1, bound=BOUND)


def test_an_engine_that_drops_an_item_is_not_timed() -> None:
    halved = Engine("onnx", "image", lambda feeds: feeds["pixel_values"][:1].astype(np.float32))
    with pytest.raises(ParityError, match="differ"):
        warm_up([halved], [batch(2)], num_calls=1, bound=BOUND)


def test_differences_within_the_bound_are_reported() -> None:
    started = warm_up([engine("onnx", [], 1e-5)], [batch(2)], num_calls=1, bound=BOUND)
    assert started[0].max_abs_differences["onnx"] == pytest.approx(1e-5, rel=0.1)


def test_report_survives_the_way_through_its_file(tmp_path: Path) -> None:
    write_result(report(), tmp_path / "results" / "cpu.json")
    assert read_result(tmp_path / "results" / "cpu.json", ReferenceReport) == report()


def test_a_report_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    path.write_bytes(msgspec.json.encode(report()).replace(b'"num_rounds"', b'"rounds":1,"num_rounds"'))
    with pytest.raises(msgspec.ValidationError, match="unknown field `rounds`"):
        read_result(path, ReferenceReport)


def test_the_table_shows_speed_and_parity() -> None:
    eager, onnx = table_of(report()).splitlines()[2:]
    assert eager.startswith("| image | 2x4 | eager | 2 | 30.0 |")
    assert onnx.endswith("| 2.00x | 2.00 to 2.00 | 1e-07 |")


def test_cpu_name_becomes_a_file_name() -> None:
    assert cpu_slug("Intel(R) Xeon(R) Processor @ 2.60GHz") == "intel-xeon-processor-2.60ghz"
    assert cpu_slug("AMD EPYC 7763 64-Core Processor") == "amd-epyc-7763-64-core-processor"
    assert cpu_slug("???") == "unknown-cpu"


def test_cpu_flags_are_those_that_tell_something(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("model name\t: X\nflags\t\t: fpu amx_int8 sse avx2\nflags\t\t: fpu\n")
    (tmp_path / "arm").write_text("Features\t: fp asimd i8mm\n")
    assert cpu_flags(tmp_path / "x86") == ("avx2", "amx_int8")
    assert cpu_flags(tmp_path / "arm") == ("asimd", "i8mm")
    assert cpu_flags(tmp_path / "none") == ()


def test_busy_time_leaves_out_idling_and_guests(tmp_path: Path) -> None:
    import os

    (tmp_path / "stat").write_text("cpu  10 20 30 4000 500 60 70 80 900 1000\ncpu0 1 2 3\n")
    assert busy_cpu_s(tmp_path / "stat") == (10 + 20 + 30 + 60 + 70 + 80) / os.sysconf("SC_CLK_TCK")
    assert busy_cpu_s(tmp_path / "none") is None


def test_card_names_command_and_threads() -> None:
    card = Watch("the command", 2).card()
    assert (card.command, card.num_threads) == ("the command", 2)
    assert card.others_cpu_share is None or card.others_cpu_share >= 0
    assert "torch" in card.versions


def test_a_batch_of_one_is_the_caption_of_median_length() -> None:
    token_counts = np.array([30, 5, 12, 49, 7])
    assert pick_captions(token_counts, 1) == [2]
    assert sorted(pick_captions(token_counts, 5)) == [0, 1, 2, 3, 4]
    assert pick_captions(token_counts, 3) == pick_captions(token_counts, 3)
