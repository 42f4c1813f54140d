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
from torch.nn import functional

from mmalign_runtime.spec import Similarity


class TeacherVectors(msgspec.Struct, frozen=True):
    """What another model gives for the same images and captions: unit vectors (B, T), and its scale of cosines."""

    image: Tensor
    text: Tensor
    scale: float


class EmbeddedBatch(msgspec.Struct, frozen=True):
    """What a loss is taken of: B unit vectors a side, (B, D), and the keys of their pairs.

    Pairs show the same thing where `keys`, (B,) or (B, K) int64, are equal in any column. `captions` are the features
    of the text tower, (B, F), `view_embeds` the vectors (B, D) of another view of each image, `teacher` another
    model's vectors, `regions` (B, N, R) what the image tower has of each place.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    keys: Tensor
    captions: Tensor | None = None
    view_embeds: Tensor | None = None
    teacher: TeacherVectors | None = None
    regions: Tensor | None = None

    def caption_features(self) -> Tensor:
        """Return `captions` without gradient, of unit length and float32. Raises ValueError where there are none."""
        if self.captions is None:
            raise ValueError("the loss compares captions, and the batch has no features of them; give `captions`")
        return functional.normalize(self.captions.detach().float(), dim=-1)


class LossConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """The scale of cosines, which every loss has.

    The default temperature and the bound of 100 are those of CLIP (Radford et al. 2021, section 2.5).

    Attributes:
        temperature: Initial temperature: 1 over the logit scale. It is fixed where `learn_temperature` is false.
        learn_temperature: Whether the logit scale is trained.
        final_temperature: Temperature at the end of the run, which a fixed one goes to by the same factor each step.
        max_logit_scale: Upper bound of the logit scale.
        min_logit_scale: Lower bound of the logit scale. 0 is none.
        chunk_size: Rows of the matrix of cosines that are computed at a time, so that a large batch never holds it
            whole. 0 computes all at once.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.07
    learn_temperature: bool = True
    final_temperature: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_logit_scale: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    min_logit_scale: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    chunk_size: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a temperature that the bounds would silently change, or that learns and is scheduled."""
        self._check_bounds("temperature", self.temperature)
        if self.final_temperature is not None:
            self._check_bounds("final_temperature", self.final_temperature)
        if self.learn_temperature and self.final_temperature is not None:
            raise ValueError(
                "learn_temperature is true and final_temperature is set; a temperature either learns or is scheduled. "
                "Set learn_temperature = false, or leave final_temperature out"
            )

    def _check_bounds(self, name: str, temperature: float) -> None:
        scale = 1.0 / temperature
        if scale > self.max_logit_scale:
            beyond = f"above max_logit_scale {self.max_logit_scale:g}; raise"
        elif scale < self.min_logit_scale:
            beyond = f"below min_logit_scale {self.min_logit_scale:g}; lower"
        else:
            return
        raise ValueError(f"{name} {temperature} is a scale of {scale:g}, {beyond} one of them")

    def build(self) -> Loss:
        """Return the loss, before training."""
        raise NotImplementedError


class Loss(nn.Module, ABC):
    """A loss and what it learns. Its tensors are saved under their own names, `logit_scale` above all."""

    logit_scale: Tensor

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.chunk_size = config.chunk_size
        self._max_log_scale = math.log(config.max_logit_scale)
        self._min_log_scale = math.log(config.min_logit_scale) if config.min_logit_scale else -math.inf
        self._first_log_scale = -math.log(config.temperature)
        self._last_log_scale = None if config.final_temperature is None else -math.log(config.final_temperature)
        self.register("logit_scale", self._first_log_scale, learns=config.learn_temperature)

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
        """Bring `logit_scale` back between its bounds, as training does after each update.

        The parameter is bounded, not its exponential in `scale`: a clamp there has no gradient at the bound (and
        float32 rounds exp(log(100)) up), so that a scale that reached it could never come down again.
        """
        with torch.no_grad():
            self.logit_scale.clamp_(min=self._min_log_scale, max=self._max_log_scale)

    def schedule_scale(self, progress: float) -> None:
        """Set a scheduled scale to its value at `progress`, 0..1, of the run; any other is left alone."""
        if self._last_log_scale is not None:
            self.logit_scale.fill_(self._first_log_scale + progress * (self._last_log_scale - self._first_log_scale))

    def register(self, name: str, value: float, *, learns: bool) -> None:
        """Add a number that is saved: a parameter where it learns, a buffer where it does not."""
        if learns:
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))
        else:
            self.register_buffer(name, torch.tensor(value))


def share_a_key(keys: Tensor, others: Tensor | None = None) -> Tensor:
    """Return which of b pairs are positives of which of B, (b, B) bool, by keys (b, K) and (B, K), or one a pair.

    `others` are the keys of the B pairs, `keys` themselves where left out.
    """
    others = keys if others is None else others
    shared = torch.zeros(len(keys), len(others), dtype=torch.bool, device=keys.device)  # (b, B)
    columns = zip(keys.reshape(len(keys), -1).T, others.reshape(len(others), -1).T, strict=True)
    for own, other in columns:  # one at a time: never more than a matrix
        shared |= own[:, None] == other[None, :]
    return shared


def even_targets(positives: Tensor) -> Tensor:
    """Return targets (b, B) float32 for positives (b, B) bool: a row's sum is 1, spread evenly over its positives."""
    return positives.float() / positives.sum(dim=1, keepdim=True)
