from __future__ import annotations

import pytest
import torch

from mmalign.hard_batches import MiningConfig, with_neighbours
from mmalign.optim import StepPlan

PLAN = StepPlan(5, (0, 1, 2, 3, 4, 5, 6, 7), seed=1)
# Each pair's neighbours are the ones ten and twenty above it.
NEIGHBOURS = torch.arange(8)[:, None] + torch.tensor([10, 20])


def test_neighbours_of_the_first_pairs_take_the_place_of_the_last() -> None:
    rows = with_neighbours(PLAN, NEIGHBOURS, 0.25).rows
    assert rows[:6] == (0, 1, 2, 3, 4, 5)
    assert len(set(rows)) == 8
    assert all(row >= 10 and row % 10 < 6 for row in rows[6:])


def test_a_batch_depends_on_its_plan_alone() -> None:
    batches = {with_neighbours(PLAN, NEIGHBOURS, 0.5).rows for _ in range(3)}
    others = {with_neighbours(StepPlan(5, PLAN.rows, seed), NEIGHBOURS, 0.5).rows for seed in range(2, 9)}
    assert len(batches) == 1
    assert len(others) > 1


def test_pairs_without_neighbours_leave_the_batch_as_it_was() -> None:
    none = torch.full((8, 2), -1)
    assert with_neighbours(PLAN, none, 0.5).rows == PLAN.rows
    own = torch.arange(8)[:, None].roll(1, 0)  # each neighbour is in the batch already
    assert sorted(with_neighbours(PLAN, own, 0.5).rows) == list(PLAN.rows)


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.0), (0.19, 0.0), (0.2, 0.0), (0.4, 0.25), (0.6, 0.5), (1.0, 0.5)]
)
def test_the_share_rises_after_the_start(progress: float, share: float) -> None:
    assert MiningConfig(share=0.5, start=0.2, ramp=0.4).share_at(progress) == pytest.approx(share)


def test_without_a_ramp_the_share_is_there_at_once() -> None:
    assert MiningConfig(share=0.5, start=0.0, ramp=0.0).share_at(0.0) == 0.5
