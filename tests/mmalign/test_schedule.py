from __future__ import annotations

import pytest

from mmalign.schedule import Schedule, plan_steps

SCHEDULE = Schedule(num_pairs=11, batch_size=3, epochs=3, accumulate=2)


def test_incomplete_last_batch_is_left_out() -> None:
    assert SCHEDULE.steps_per_epoch == 3
    assert SCHEDULE.num_steps == 9


def test_an_epoch_takes_no_pair_twice_and_epochs_differ() -> None:
    plans = list(plan_steps(SCHEDULE, seed=1))
    epochs = [[row for plan in plans[start : start + 3] for row in plan.rows] for start in (0, 3, 6)]
    for rows in epochs:
        assert len(set(rows)) == 9
        assert set(rows) <= set(range(11))
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("first_step", range(10))
def test_plans_are_the_same_from_any_step_on(first_step: int) -> None:
    assert list(plan_steps(SCHEDULE, 1, first_step)) == list(plan_steps(SCHEDULE, 1))[first_step:]


def test_seeds_differ_by_step_and_by_run() -> None:
    first, second = ([plan.seed for plan in plan_steps(SCHEDULE, seed)] for seed in (1, 2))
    assert len(set(first + second)) == 18


def test_validation_falls_on_ends_of_epochs_and_on_the_last_step() -> None:
    assert [step for step in range(9) if SCHEDULE.is_validated(step, 1)] == [2, 5, 8]
    assert [step for step in range(9) if SCHEDULE.is_validated(step, 2)] == [5, 8]
    assert [step for step in range(9) if SCHEDULE.is_validated(step, 5)] == [8]


def test_updates_end_every_few_steps_and_on_the_last() -> None:
    assert [step for step in range(9) if SCHEDULE.ends_update(step)] == [1, 3, 5, 7, 8]
    assert [len(SCHEDULE.update_window(step)) for step in range(9)] == [2] * 8 + [1]
