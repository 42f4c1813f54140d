"""The residual MLP head: blocks that add to the features, and one matrix after them.

Each block's last layer begins at zero, so that training starts from the linear head (Goyal et al. 2017, section 5.1).
Shapes: B batch, F features.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor, nn

from mmalign.heads.protocol import Head


class ResidualHead(Head, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="residual"):
    """Residual blocks as wide as the features, and a layer without bias.

    Attributes:
        num_blocks: How many blocks, at most 1000.
    """

    num_blocks: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return the blocks and the layer."""
        blocks = [ResidualBlock(feature_dim, self.dropouts()) for _ in range(self.num_blocks)]
        return [*blocks, nn.Linear(feature_dim, embed_dim, bias=False)]


class ResidualBlock(nn.Module):
    """LayerNorm, a layer, GELU, a layer, added to what came in: (B, F) -> (B, F)."""

    def __init__(self, feature_dim: int, dropouts: list[nn.Module]) -> None:
        super().__init__()
        last = nn.Linear(feature_dim, feature_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = [nn.LayerNorm(feature_dim), nn.Linear(feature_dim, feature_dim), nn.GELU()]
        self.change = nn.Sequential(*first, *dropouts, last)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features with the block's change added."""
        changed: Tensor = features + self.change(features)
        return changed
