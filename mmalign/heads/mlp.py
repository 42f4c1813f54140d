"""The MLP head: two layers, as in SimCLR (Chen et al. 2020)."""

from __future__ import annotations

from torch import nn

from mmalign.heads.protocol import Head


class MLPHead(Head, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mlp"):
    """A layer as wide as the features, GELU, and a layer without bias."""

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return both layers."""
        hidden = [nn.Linear(feature_dim, feature_dim), nn.GELU(), *self.dropouts()]
        return [*hidden, nn.Linear(feature_dim, embed_dim, bias=False)]
