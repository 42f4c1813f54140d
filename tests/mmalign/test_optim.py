from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmalign.model import DualEncoder, freeze
from mmalign.optim import OptimConfig, Schedule, build_optimizer, plan_steps, set_learning_rate

SCHEDULE = Schedule(num_pairs=11, batch_size=3, epochs=3, accumulate=2)


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    parameters = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "initial_lr": rate} for rate in (1.0, 0.1)]
    return torch.optim.AdamW(parameters)


def rates(optimizer: torch.optim.Optimizer, num_steps: int, config: OptimConfig) -> list[float]:
    return [set_learning_rate(optimizer, step, num_steps, config) for step in range(num_steps)]


def test_rate_rises_in_a_line_and_falls_as_half_a_cosine(optimizer: torch.optim.Optimizer) -> None:
    factors = rates(optimizer, 100, OptimConfig(warmup=0.1))
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    expected = [0.5 * (1 + math.cos(math.pi * step / 90)) for step in range(90)]
    assert factors[10:] == pytest.approx(expected)


def test_without_warmup_the_first_step_has_the_full_rate(optimizer: torch.optim.Optimizer) -> None:
    assert rates(optimizer, 3, OptimConfig(warmup=0.0))[0] == 1.0


def test_each_group_keeps_its_share(optimizer: torch.optim.Optimizer) -> None:
    set_learning_rate(optimizer, 50, 100, OptimConfig())
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second == pytest.approx(first / 10)


def test_parts_have_their_own_rates_and_vectors_do_not_decay(make_model: Callable[[], DualEncoder]) -> None:
    model = make_model()
    config = OptimConfig(image_tower_lr=0.1, text_tower_lr=0.2, projection_lr=0.3, logit_scale_lr=0.4)
    group_of = {id(p): group for group in build_optimizer(model, config).param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    rates = {"image_tower": 0.1, "text_tower": 0.2, "image_projection": 0.3, "text_projection": 0.3, "loss": 0.4}
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr"] == rates[name.split(".")[0]]
        assert group["weight_decay"] == (config.weight_decay if parameter.ndim > 1 else 0.0)


def test_what_is_frozen_is_not_optimized(make_model: Callable[[], DualEncoder]) -> None:
    model = make_model()
    freeze(model.text_tower)
    optimized = {id(p) for group in build_optimizer(model, OptimConfig()).param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.parameters() if p.requires_grad}


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
