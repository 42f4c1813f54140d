from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime.bench.quiet import Ticks, Watch, judge, own_cpus, read_ticks, shares
from mmalign_runtime.cli.bench_tables import verdict

STEADY_S = np.random.default_rng(0).normal(0.020, 0.0002, 60).tolist()


def test_a_steady_machine_is_quiet() -> None:
    found = judge(STEADY_S, others_share=0.01, steal_share=0.0)
    assert found.is_quiet
    assert found.reference_ms == pytest.approx(20, abs=0.5)
    assert "Quiet machine" in verdict(found)


def test_a_neighbour_that_comes_and_goes_is_noise() -> None:
    busy = [seconds * (1.5 if index % 6 == 0 else 1) for index, seconds in enumerate(STEADY_S)]
    found = judge(busy, None, None)
    assert not found.is_quiet
    assert found.spread == pytest.approx(1.5, abs=0.1)
    assert "Noisy machine: the same work took 1." in verdict(found) and "(limit 1.15x)" in verdict(found)


@pytest.mark.parametrize(("factor", "word"), [(1.2, "slowed down"), (1 / 1.2, "sped up")])
def test_a_machine_that_changes_its_speed_is_noise(factor: float, word: str) -> None:
    changing = [seconds * np.interp(index, [20, 40], [1, factor]) for index, seconds in enumerate(STEADY_S)]
    found = judge(changing, None, None)
    assert found.drift == pytest.approx(1.2, abs=0.02)
    assert any(word in seen for seen in found.noise)


def test_shares_of_others_and_of_the_host_are_noise() -> None:
    assert "other processes took 30% of the processors" in judge(STEADY_S, 0.3, 0.0).noise[0]
    assert "the host took 10% of the processors" in judge(STEADY_S, 0.0, 0.1).noise[0]


def test_what_this_process_used_is_not_others() -> None:
    others, steal = shares(Ticks(100, 5), Ticks(118, 6), own_s=15, capacity_s=20)
    assert others == pytest.approx(0.15)
    assert steal == pytest.approx(0.05)
    assert shares(None, Ticks(1, 1), own_s=0, capacity_s=1) == (None, None)
    assert shares(Ticks(0, 0), Ticks(1, 0), own_s=1.01, capacity_s=2) == (0.0, 0.0)  # ticks are coarse


def test_only_the_processors_that_may_be_used_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    path = tmp_path / "stat"
    lines = ["cpu  999 9 9 9 9 9 9 9 0 0", "cpu0 100 20 30 1000 50 6 7 80 0 0", "cpu1 500 0 0 0 0 0 0 0 0 0", "intr 1"]
    path.write_text("\n".join(lines))
    assert read_ticks([0], path) == Ticks((100 + 20 + 30 + 6 + 7) / 100, 0.8)
    path.write_text("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert read_ticks([0], path) is None
    assert read_ticks([0], tmp_path / "missing") is None
    assert own_cpus()


def test_a_watch_has_enough_references_however_short_it_was() -> None:
    found = Watch(num_threads=1).verdict()
    assert found.num_references >= 20
    assert found.reference_ms > 0
