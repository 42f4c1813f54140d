"""The MLP head: two layers, as in SimCLR (Chen et al. 2020)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import nn

from mmalign.heads.protocol import Head


class MLPHead(Head, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mlp"):
    """A layer, GELU, and a layer without bias.

    Attributes:
        hidden_dim: Width of the first layer. Unset: that of the features.
    """

    hidden_dim: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return both layers."""
        width = self.hidden_dim or feature_dim
        return [nn.Linear(feature_dim, width), nn.GELU(), *self.dropouts(), nn.Linear(width, embed_dim, bias=False)]
