"""What a bundle has of the attention: an image's tokens from its pixels, and the scores of texts against tokens.

Shapes: B batch, T texts, I images, S image side, N regions, D embedding.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.dual_model import ModelAttention, ModelGraph
from mmalign.model import DualEncoder
from mmalign.model.attention import RegionAttention
from mmalign.signature import BATCH, Axis, ModuleInput, image_inputs
from mmalign.towers.regions import features_and_regions, image_tower_with_regions, region_grid
from mmalign.towers.vision import ImageTower
from mmalign_runtime.spec import Attention, ImageSpec


class ImageTokens(nn.Module):
    """pixel_values (B, 3, S, S) -> (B, 1 + N, D): the image's vector, then its regions' tokens. The tower runs once."""

    def __init__(self, tower: ImageTower, projection: nn.Module, attention: RegionAttention) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.attention = attention

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the tokens, float32 of unit length. Its one input is in a tuple, as those of towers are."""
        (pixel_values,) = inputs
        features, regions = features_and_regions(self.tower, pixel_values)
        image_embeds = functional.normalize(self.projection(features).float(), dim=-1)  # (B, D)
        return torch.cat([image_embeds[:, None], self.attention.tokens(regions)], dim=1)  # (B, 1 + N, D)


class AttendedScores(nn.Module):
    """text_embeds (T, D) and image_tokens (I, 1 + N, D) -> (T, I, 1 + N): the score, then the weights."""

    def __init__(self, attention: RegionAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the scores before their weights."""
        text_embeds, image_tokens = inputs
        scores, weights = self.attention(text_embeds, image_tokens[:, 0], image_tokens[:, 1:])
        return torch.cat([scores[..., None], weights], dim=-1)  # (T, I, 1 + N)


def model_attention(model: DualEncoder, image: ImageSpec) -> ModelAttention | None:
    """Return the attention of an encoder as what is exported, its weights shared; None where it has none."""
    if model.attention is None:
        return None
    tower = image_tower_with_regions(model.image_tower)
    grid = region_grid(tower, image.shape)
    spec = Attention(rows=grid.rows, columns=grid.columns)
    embed_dim = model.config.embed_dim
    projection = cast("nn.Module", model.image_projection)
    return ModelAttention(
        spec=spec,
        regions=ModelGraph(
            module=ImageTokens(tower, projection, model.attention).eval(),
            inputs=image_inputs(image),
            output_name=spec.image_tokens,
        ),
        scores=ModelGraph(
            module=AttendedScores(model.attention).eval(),
            inputs=(
                ModuleInput(spec.text_embeds, "float32", (Axis("texts"), embed_dim)),
                ModuleInput(spec.image_tokens, "float32", (BATCH, spec.num_tokens, embed_dim)),
            ),
            output_name=spec.attended,
        ),
    )
