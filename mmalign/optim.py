"""AdamW with a learning rate for each part, warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import torch
from torch import nn

from mmalign.model import DualEncoder

Rate = Annotated[float, msgspec.Meta(ge=0)]


class OptimConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW (Loshchilov and Hutter 2019) with a warm-up and a cosine decay of its learning rates.

    Attributes:
        image_tower_lr: Learning rate of the image tower, where it is not frozen.
        text_tower_lr: Learning rate of the text tower, where it is not frozen.
        projection_lr: Learning rate of both projections.
        logit_scale_lr: Learning rate of the logit scale.
        weight_decay: Weight decay of matrices. Biases, norms and the logit scale have none.
        warmup: Share of all steps in which learning rates rise from 0.
        clip_norm: Norm that gradients are clipped to. 0 switches clipping off.
        accumulate: Batches whose gradients are summed before a step.
    """

    image_tower_lr: Rate = 1e-4
    text_tower_lr: Rate = 2e-5
    projection_lr: Rate = 1e-3
    logit_scale_lr: Rate = 1e-3
    weight_decay: Rate = 0.05
    warmup: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    clip_norm: Rate = 1.0
    accumulate: Annotated[int, msgspec.Meta(ge=1)] = 1


def build_optimizer(model: DualEncoder, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over what learns; biases, norms and the scale are not decayed."""
    parts: list[tuple[nn.Module, float]] = [
        (model.image_tower, config.image_tower_lr),
        (model.text_tower, config.text_tower_lr),
        (model.image_projection, config.projection_lr),
        (model.text_projection, config.projection_lr),
    ]
    groups = []
    for module, learning_rate in parts:
        learning = [p for p in module.parameters() if p.requires_grad]
        groups.append(_group([p for p in learning if p.ndim > 1], learning_rate, config.weight_decay))
        groups.append(_group([p for p in learning if p.ndim <= 1], learning_rate, 0.0))
    if model.logit_scale.requires_grad:
        groups.append(_group([model.logit_scale], config.logit_scale_lr, 0.0))
    return torch.optim.AdamW([group for group in groups if group["params"]])


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, num_steps: int, config: OptimConfig) -> float:
    """Set each group's rate for this step and return the factor: linear warm-up, then half a cosine to zero."""
    warmup_steps = math.ceil(config.warmup * num_steps)
    if step < warmup_steps:
        factor = (step + 1) / warmup_steps
    else:
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        factor = 0.5 * (1.0 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return factor


def _group(parameters: list[torch.Tensor], learning_rate: float, weight_decay: float) -> dict[str, object]:
    return {
        "params": parameters,
        "lr": learning_rate,
        "initial_lr": learning_rate,
        "weight_decay": weight_decay,
    }
