"""No head: the tower's features are the vectors. For imported towers, whose features are in a shared space already."""

from __future__ import annotations

from torch import nn

from mmalign.errors import ConfigError
from mmalign.heads.protocol import Head


class IdentityHead(Head, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="identity"):
    """Nothing is learned between features and vectors; `model.embed_dim` is the features' width."""

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return no layer. Raises ConfigError where features and space differ in width."""
        if feature_dim != embed_dim:
            raise ConfigError(
                f"a head of kind 'identity' keeps the tower's {feature_dim} features, and model.embed_dim is "
                f"{embed_dim}. Set model.embed_dim = {feature_dim}, or choose another head."
            )
        return []
