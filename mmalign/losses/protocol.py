"""What training, evaluation and export know of a loss: a number for a batch, and how it makes cosines be read.

A loss is a module, since what it learns (a scale, a bias) is optimized and saved with the model.
Shapes: B batch, D embedding, K keys a pair.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn

from mmalign_runtime.spec import Similarity


class EmbeddedBatch(msgspec.Struct, frozen=True):
    """What a loss is taken of: B unit vectors a side, (B, D), and the keys of their pairs.

    Pairs show the same thing where `keys`, (B,) or (B, K) int64, are equal in any column.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    keys: Tensor


class LossConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """The scale of cosines, which every loss has.

    The default temperature and the bound of 100 are those of CLIP (Radford et al. 2021, section 2.5).

    Attributes:
        temperature: Initial temperature: 1 over the logit scale. It is fixed where `learn_temperature` is false.
        learn_temperature: Whether the logit scale is trained.
        max_logit_scale: Upper bound of the logit scale.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.07
    learn_temperature: bool = True
    max_logit_scale: Annotated[float, msgspec.Meta(gt=0)] = 100.0

    def __post_init__(self) -> None:
        """Raise ValueError for a temperature that the bound would silently change."""
        if 1.0 / self.temperature > self.max_logit_scale:
            raise ValueError(
                f"temperature {self.temperature} is a scale of {1.0 / self.temperature:g}, above max_logit_scale "
                f"{self.max_logit_scale:g}; raise one of them"
            )

    def build(self) -> Loss:
        """Return the loss, before training."""
        raise NotImplementedError


class Loss(nn.Module, ABC):
    """A loss and what it learns. Its tensors are saved under their own names, `logit_scale` above all."""

    logit_scale: Tensor

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self._max_log_scale = math.log(config.max_logit_scale)
        self.register("logit_scale", math.log(1.0 / config.temperature), learns=config.learn_temperature)

    @abstractmethod
    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch, computed in float32 whatever autocast says."""

    @abstractmethod
    def similarity(self) -> Similarity:
        """Return how this loss, as it stands, makes a cosine be read: what a bundle carries."""

    def scale(self) -> Tensor:
        """Return the factor on cosines, exp(logit_scale)."""
        return self.logit_scale.exp()

    def bound_scale(self) -> None:
        """Bring `logit_scale` back below its bound, as training does after each update.

        The parameter is bounded, not its exponential in `scale`: a clamp there has no gradient at the bound (and
        float32 rounds exp(log(100)) up), so that a scale that reached it could never come down again.
        """
        with torch.no_grad():
            self.logit_scale.clamp_(max=self._max_log_scale)

    def register(self, name: str, value: float, *, learns: bool) -> None:
        """Add a number that is saved: a parameter where it learns, a buffer where it does not."""
        if learns:
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))
        else:
            self.register_buffer(name, torch.tensor(value))


def share_a_key(keys: Tensor) -> Tensor:
    """Return which pairs are positives of each other, (B, B) bool, given their keys (B, K)."""
    shared = torch.zeros(len(keys), len(keys), dtype=torch.bool, device=keys.device)  # (B, B)
    for column in keys.T:  # one at a time: never more than a matrix
        shared |= column[:, None] == column[None, :]
    return shared
