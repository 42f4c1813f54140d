"""The linear head: one matrix, as in CLIP."""

from __future__ import annotations

from torch import nn

from mmalign.heads.protocol import Head


class LinearHead(Head, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="linear"):
    """One layer without bias."""

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return the layer."""
        return [nn.Linear(feature_dim, embed_dim, bias=False)]
