"""What frozen towers give for pairs, computed once and cached, and what follows from it."""

from __future__ import annotations

from mmalign.features.model_features import (
    ImageFeatures,
    ModelFeatures,
    PooledTextFeatures,
    TextFeatures,
    content_key,
)

__all__ = ["ImageFeatures", "ModelFeatures", "PooledTextFeatures", "TextFeatures", "content_key"]
