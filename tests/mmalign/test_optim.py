from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmalign.model import DualEncoder, freeze
from mmalign.optim import OptimConfig, build_optimizer, set_learning_rate


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
