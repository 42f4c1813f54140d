"""The dual encoder: two towers, two projections, one space of unit vectors.

Shapes: B batch, L text tokens, S image side, F features of a tower, D embedding.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.text import TextTower
from mmalign.vision import ImageTower


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shared space and the scale of its cosines.

    The default temperature and the bound of 100 are those of CLIP (Radford et al. 2021, section 2.5).

    Attributes:
        embed_dim: Dimensions of the vectors, D.
        projection: How features become vectors: one matrix ("linear"), or two layers ("mlp").
        standardize_features: Whether every feature gets mean 0 and variance 1 before its projection.
        image_dropout: Dropout on image features, and inside an MLP, in training.
        text_dropout: Dropout on text features, and inside an MLP, in training.
        temperature: Initial temperature of the softmax: 1 over the logit scale. It is fixed where `learn_temperature`
            is false.
        learn_temperature: Whether the logit scale is trained.
        max_logit_scale: Upper bound of the logit scale.
    """

    embed_dim: Annotated[int, msgspec.Meta(ge=1)] = 256
    projection: Literal["linear", "mlp"] = "linear"
    standardize_features: bool = False
    image_dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    text_dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
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


class DualEncoder(nn.Module):
    """Two towers whose projections end in one space of unit vectors."""

    logit_scale: Tensor

    def __init__(self, image_tower: ImageTower, text_tower: TextTower, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.image_projection = _projection(image_tower.feature_dim, config, config.image_dropout)
        self.text_projection = _projection(text_tower.feature_dim, config, config.text_dropout)
        log_scale = torch.tensor(math.log(1.0 / config.temperature))
        if config.learn_temperature:
            self.logit_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("logit_scale", log_scale)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Return image_embeds, (B, D) float32 of unit length, for pixel_values (B, 3, S, S)."""
        return self.project_image(self.image_tower(pixel_values))

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embeds, (B, D) float32 of unit length, for ids and mask (B, L)."""
        return self.project_text(self.text_tower(input_ids, attention_mask))

    def project_image(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, D) for image features (B, F)."""
        return functional.normalize(self.image_projection(features).float(), dim=-1)

    def project_text(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, D) for text features (B, F)."""
        return functional.normalize(self.text_projection(features).float(), dim=-1)

    def scale(self) -> Tensor:
        """Return the factor on cosines, exp(logit_scale)."""
        return self.logit_scale.exp()

    def bound_scale(self) -> None:
        """Bring `logit_scale` back below its bound, as training does after each update.

        The parameter is bounded, not its exponential in `scale`: a clamp there has no gradient at the bound (and
        float32 rounds exp(log(100)) up), so that a scale that reached it could never come down again.
        """
        with torch.no_grad():
            self.logit_scale.clamp_(max=math.log(self.config.max_logit_scale))


def _projection(feature_dim: int, config: ModelConfig, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    if config.standardize_features:
        layers.append(nn.BatchNorm1d(feature_dim, affine=False))
    if dropout:
        layers.append(nn.Dropout(dropout))
    if config.projection == "mlp":
        layers += [nn.Linear(feature_dim, feature_dim), nn.GELU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(feature_dim, config.embed_dim, bias=False))
    return nn.Sequential(*layers)


def freeze(module: nn.Module) -> None:
    """Stop a tower from learning: no gradients, no dropout, no batch statistics."""
    module.requires_grad_(False)
    module.eval()


def is_frozen(module: nn.Module) -> bool:
    """Say whether no parameter of a tower learns."""
    return not any(parameter.requires_grad for parameter in module.parameters())
