from __future__ import annotations

import numpy as np
import pytest

from mmalign.figures import bootstrap
from mmalign.figures.bootstrap import Resampling, intervals


def by_hand(values: np.ndarray, concepts: np.ndarray, resampling: Resampling) -> tuple[float, float]:
    """Resample as it is written: gather each drawn concept's queries in a list, and take their mean."""
    generator = np.random.default_rng(resampling.seed)
    own = [values[concepts == concept].tolist() for concept in np.unique(concepts)]
    means = []
    for _ in range(resampling.num_resamples):
        drawn = [value for concept in generator.integers(len(own), size=len(own)) for value in own[concept]]
        means.append(sum(drawn) / len(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_equals_resampling_by_hand() -> None:
    generator = np.random.default_rng(3)
    concepts, values = generator.integers(50, 70, size=90), generator.random((90, 2))
    found = intervals(values, concepts, Resampling(num_resamples=200, seed=7))
    for column, interval in zip(values.T, found, strict=True):
        assert (interval.low, interval.high) == pytest.approx(by_hand(column, concepts, Resampling(200, 7)))


def test_queries_of_one_concept_move_together() -> None:
    hits = np.repeat(np.random.default_rng(0).random(100) < 0.5, 25).astype(float)[:, None]  # 25 queries a concept
    (alone,) = intervals(hits, np.arange(2500), Resampling())
    (together,) = intervals(hits, np.repeat(np.arange(100), 25), Resampling())
    assert together.high - together.low > 4 * (alone.high - alone.low)  # five times, in expectation


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    held = 0
    for trial in range(200):
        hits = (generator.random((150, 1)) < 0.3).astype(float)
        (found,) = intervals(hits, np.arange(150), Resampling(num_resamples=300, seed=trial))
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_seed_gives_the_same_and_a_paired_difference_is_narrow() -> None:
    generator = np.random.default_rng(2)
    easy = generator.random(300)[:, None]
    first, second = (generator.random((300, 1)) < easy for _ in range(2))
    better = first | (generator.random((300, 1)) < 0.05)
    concepts, resampling = np.arange(300), Resampling()
    (paired,) = intervals(better.astype(float) - first, concepts, resampling)
    (unpaired,) = intervals(second.astype(float) - first, concepts, resampling)
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2
    assert intervals(better.astype(float), concepts, resampling) == intervals(
        better.astype(float), concepts, resampling
    )


def test_memory_is_bounded_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, concepts = np.random.default_rng(0).random((60, 3)), np.arange(60) // 2
    whole = intervals(values, concepts, Resampling(num_resamples=50))
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 100)
    assert intervals(values, concepts, Resampling(num_resamples=50)) == whole


def test_no_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no queries, so no interval is defined"):
        intervals(np.empty((0, 1)), np.empty(0, np.int64), Resampling())
