"""What a model knows of a head: the projection that it makes, from a tower's features to the shared space.

Shapes: B batch, F features of a tower, D embedding.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import nn

from mmalign.errors import ConfigError
from mmalign.memory import within_memory


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every head has before its layers.

    Attributes:
        standardize_features: Whether every feature gets mean 0 and variance 1 before the layers.
        dropout: Dropout on the features, and inside a head of several layers, in training.
    """

    standardize_features: bool = False
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0

    def build(self, feature_dim: int, embed_dim: int) -> nn.Sequential:
        """Return the projection (B, F) -> (B, D), before training; unit length is made after it.

        Raises ConfigError for one that is too large for the memory.
        """
        before = [nn.BatchNorm1d(feature_dim, affine=False)] if self.standardize_features else []
        what = f"a head from {feature_dim} features to model.embed_dim = {embed_dim}"
        with within_memory(
            what, "Choose a smaller model.embed_dim, hidden_dim or num_blocks of the head.", ConfigError
        ):
            layers = self.layers(feature_dim, embed_dim)
        return nn.Sequential(*before, *self.dropouts(), *layers)

    def layers(self, feature_dim: int, embed_dim: int) -> list[nn.Module]:
        """Return the layers after standardization and dropout."""
        raise NotImplementedError

    def dropouts(self) -> list[nn.Module]:
        """Return the dropout where there is one."""
        return [nn.Dropout(self.dropout)] if self.dropout else []
