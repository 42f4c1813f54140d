from __future__ import annotations

from itertools import chain, groupby

import pytest
import torch
from torch import Tensor

from mmalign.hard_batches import MiningConfig
from mmalign.optim import Schedule, StepPlan, plan_steps
from mmalign.training import mining
from mmalign.training.mining import NEIGHBOURS, Miner, nearest_wrong
from tests.mmalign.losses.oracle import unit

SCHEDULE = Schedule(num_pairs=12, batch_size=4, epochs=6)
KEYS = torch.stack([torch.arange(12) // 2, torch.arange(12)], dim=1)  # two pairs a concept, an image each


@pytest.mark.parametrize("block", [1, 5, 1024])
def test_neighbours_are_the_nearest_of_another_concept(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(mining, "_BLOCK", block)
    images, texts = unit(12, 1), unit(12, 2)
    found = nearest_wrong(images, texts, KEYS, 3)
    for row, cosines in enumerate(images @ texts.T):
        wrong = [at for at in range(12) if at // 2 != row // 2]
        assert found[row].tolist() == sorted(wrong, key=lambda at: -cosines[at].item())[:3]


def test_where_fewer_are_wrong_the_rest_is_empty() -> None:
    found = nearest_wrong(unit(3, 1), unit(3, 2), torch.tensor([[0], [0], [1]]), 8)
    assert found.shape == (3, 3)
    assert [sorted(row) for row in found.tolist()] == [[-1, -1, 2], [-1, -1, 2], [-1, 0, 1]]


class GivenPairs:
    """Vectors that are given, and how often they were asked for."""

    def __init__(self) -> None:
        self.num_calls = 0

    def embed(self) -> tuple[Tensor, Tensor]:
        self.num_calls += 1
        return unit(12, self.num_calls), unit(12, 100 + self.num_calls)


def miner(config: MiningConfig, state: dict[str, Tensor]) -> tuple[Miner, GivenPairs]:
    pairs = GivenPairs()
    return Miner(config, SCHEDULE, pairs, KEYS, state), pairs  # type: ignore[arg-type]


def plans_of(windows: Miner, first_step: int = 0) -> list[list[StepPlan]]:
    return [list(window) for window in windows.windows(plan_steps(SCHEDULE, 0, first_step))]


def test_it_searches_every_so_many_steps_from_its_start_on() -> None:
    state: dict[str, Tensor] = {}
    found, pairs = miner(MiningConfig(share=0.5, every=4, start=0.5, ramp=0.0), state)
    windows = plans_of(found)
    assert [len(window) for window in windows] == [4, 4, 1, 3, 4, 2]
    assert pairs.num_calls == 3, "at step 9, where it starts, at 12 and at 16"
    assert state[NEIGHBOURS].shape == (12, 16)
    plain = list(plan_steps(SCHEDULE, 0))
    changed = [own.rows != other.rows for own, other in zip(chain(*windows), plain, strict=True)]
    assert not any(changed[:9])
    assert sum(changed[9:]) >= 7


def test_no_search_falls_within_a_window_of_which_workers_prepare_steps_ahead() -> None:
    found, pairs = miner(MiningConfig(share=0.5, every=3, start=0.2, ramp=0.3), {})
    for window in found.windows(plan_steps(SCHEDULE, 0)):
        assert len({pairs.num_calls for _ in window}) == 1
    assert pairs.num_calls == 5, "at step 4, where it starts, and at 6, 9, 12 and 15"


def test_no_window_begins_before_the_one_before_it_has_ended() -> None:
    found, pairs = miner(MiningConfig(share=0.5, every=3, start=0.0, ramp=0.0), {})
    windows = found.windows(plan_steps(SCHEDULE, 0))
    next(iter(next(windows)))
    assert pairs.num_calls == 1
    steps = [[plan.step for plan in group] for _, group in groupby(plan_steps(SCHEDULE, 0), lambda p: p.step // 3)]
    assert steps[1] == [plan.step for plan in next(windows)]
    assert pairs.num_calls == 2


def test_a_resumed_run_goes_on_with_the_neighbours_that_it_had() -> None:
    config, state, kept = (
        MiningConfig(share=0.5, every=5, start=0.0, ramp=0.0),
        dict[str, Tensor](),
        dict[str, Tensor](),
    )
    whole = []
    for window in miner(config, state)[0].windows(plan_steps(SCHEDULE, 0)):
        for plan in window:
            whole.append(plan.rows)
            if plan.step == 11:
                kept = dict(state)
    resumed, pairs = miner(config, kept)
    rest, _ = plans_of(resumed, first_step=12)
    assert [plan.rows for plan in rest] == whole[12:15]
    assert pairs.num_calls == 1, "at step 15 alone"
