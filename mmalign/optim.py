"""Which steps there are, what pairs each takes, and how weights change on the way: AdamW, warm-up, cosine decay.

Steps count from 0. Their plans are drawn from the seed and the step, so that they can start anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import torch
from torch import nn

from mmalign.model import DualEncoder
from mmalign.seeds import seed_of
from mmalign.towers.additions import is_pool, is_still_below_pool, pool_parameters
from mmalign.towers.depth import layers_of

# float32, which the weights are in, ends at 3.4e38.
Rate = Annotated[float, msgspec.Meta(ge=0, le=1e30)]


class OptimConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW (Loshchilov and Hutter 2019) with a warm-up and a cosine decay of its learning rates.

    Attributes:
        image_tower_lr: Learning rate of the image tower, where it is not frozen.
        text_tower_lr: Learning rate of the text tower, where it is not frozen.
        projection_lr: Learning rate of both projections, of the attention, and of the pool over tokens.
        logit_scale_lr: Learning rate of the logit scale.
        weight_decay: Weight decay of matrices. Biases, norms and the logit scale have none.
        warmup: Share of all steps in which learning rates rise from 0.
        clip_norm: Norm that gradients are clipped to. 0 switches clipping off.
        accumulate: Batches whose gradients are summed before a step.
        layer_decay: Factor on a tower's learning rate from each block to the one before it; the last block has the
            whole rate, and the stem the least.
        unfreeze_every: Epochs after which one more block of each tower learns, from the last on; before that only
            projections do. 0: all learn from the start.
    """

    image_tower_lr: Rate = 1e-4
    text_tower_lr: Rate = 2e-5
    projection_lr: Rate = 1e-3
    logit_scale_lr: Rate = 1e-3
    weight_decay: Rate = 0.05
    warmup: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    clip_norm: Rate = 1.0
    accumulate: Annotated[int, msgspec.Meta(ge=1)] = 1
    layer_decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    unfreeze_every: Annotated[int, msgspec.Meta(ge=0)] = 0


class Schedule(msgspec.Struct, frozen=True):
    """The steps of a run: `accumulate` of them make one update; an epoch leaves its incomplete last batch out."""

    num_pairs: int
    batch_size: int
    epochs: int
    accumulate: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches; `batch_size` is at most `num_pairs`."""
        return self.num_pairs // self.batch_size

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def epoch_of(self, step: int) -> int:
        """Return the epoch that a step is in, counted from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Say whether a step is its epoch's last."""
        return (step + 1) % self.steps_per_epoch == 0

    def is_validated(self, step: int, validate_every: int) -> bool:
        """Say whether validation follows a step: each `validate_every` epochs, and at the end."""
        is_due = self.ends_epoch(step) and (self.epoch_of(step) + 1) % validate_every == 0
        return is_due or step + 1 == self.num_steps

    def update_window(self, step: int) -> range:
        """Return the steps whose gradients make one update together with this one's; the run's last may be shorter."""
        start = step - step % self.accumulate
        return range(start, min(start + self.accumulate, self.num_steps))

    def ends_update(self, step: int) -> bool:
        """Say whether the weights change after a step."""
        return step + 1 == self.update_window(step).stop


class StepPlan(msgspec.Struct, frozen=True):
    """Which pairs make a step, and the seed of all that is random about it."""

    step: int
    rows: tuple[int, ...]
    seed: int


def plan_steps(schedule: Schedule, seed: int, first_step: int = 0) -> Iterator[StepPlan]:
    """Yield the plans from `first_step` on: each epoch a new permutation of the pairs."""
    order: list[int] = []
    for step in range(first_step, schedule.num_steps):
        epoch = schedule.epoch_of(step)
        start = step % schedule.steps_per_epoch * schedule.batch_size
        if start == 0 or not order:
            generator = torch.Generator().manual_seed(seed_of(seed, epoch))
            order = torch.randperm(schedule.num_pairs, generator=generator).tolist()
        yield StepPlan(step, tuple(order[start : start + schedule.batch_size]), seed_of(seed, epoch, step))


def build_optimizer(model: DualEncoder, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over what learns; biases, norms and the loss's scale and bias are not decayed."""
    parts: list[tuple[Iterable[nn.Parameter], float]] = [
        *_by_depth(model.image_tower, config.image_tower_lr, config.layer_decay),
        *_by_depth(model.text_tower, config.text_tower_lr, config.layer_decay),
        (pool_parameters(model.text_tower), config.projection_lr),
        (model.image_projection.parameters(), config.projection_lr),
        (model.text_projection.parameters(), config.projection_lr),
    ]
    if model.attention is not None:
        parts.append((model.attention.parameters(), config.projection_lr))
    groups = []
    for parameters, learning_rate in parts:
        learning = [p for p in parameters if p.requires_grad]
        groups.append(_group([p for p in learning if p.ndim > 1], learning_rate, config.weight_decay))
        groups.append(_group([p for p in learning if p.ndim <= 1], learning_rate, 0.0))
    groups.append(_group([p for p in model.loss.parameters() if p.requires_grad], config.logit_scale_lr, 0.0))
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


def _by_depth(tower: nn.Module, rate: float, decay: float) -> Iterator[tuple[Iterable[nn.Parameter], float]]:
    """Yield a tower's parameters, but for a pool's, and their rates: one group, or one a layer where rates differ."""
    if decay == 1 or is_still_below_pool(tower):
        yield (parameter for name, parameter in tower.named_parameters() if not is_pool(name)), rate
        return
    layers = layers_of(tower, "optim.layer_decay").by_depth
    for depth, parameters in enumerate(layers):
        yield parameters, rate * decay ** (len(layers) - 1 - depth)


def _group(parameters: list[torch.Tensor], learning_rate: float, weight_decay: float) -> dict[str, object]:
    return {
        "params": parameters,
        "lr": learning_rate,
        "initial_lr": learning_rate,
        "weight_decay": weight_decay,
    }
