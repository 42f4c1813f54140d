"""Both towers of a model as sources of features: from disk where a tower stands still, computed anew where it learns.

Shapes: N images, M texts, F image features, G text features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mmalign.augment import ImageAugment
from mmalign.data import Pair
from mmalign.dual_model import DualModel
from mmalign.features import FeatureCache, ImageFeatures, TextFeatures
from mmalign.model import is_frozen


class Towers:
    """The towers of a model, and the cache of their features in `cache_dir`.

    With `is_training` the towers that are not frozen change between two calls, and nothing of theirs is kept.
    """

    def __init__(self, model: DualModel, cache_dir: Path, device: torch.device, *, is_training: bool) -> None:
        self.model = model
        self.keeps_images = not is_training or is_frozen(model.image.backbone)
        self.keeps_texts = not is_training or is_frozen(model.text.backbone)
        self._cache = FeatureCache(cache_dir)
        self._images = ImageFeatures(model.image, device)
        self._texts = TextFeatures(model.text, device)

    def image_features(self, pairs: Sequence[Pair], name: str) -> Tensor:
        """Return features (N, F) of the pairs' images, preprocessed as they will be served. Raises ItemError."""
        description = f"image features, {name}"
        if not self.keeps_images:
            return self._images.compute(pairs, description)
        key, shape = self._images.key(pairs, "clean"), (len(pairs), self.model.image.feature_dim)
        return self._cache.get(key, lambda: self._images.compute(pairs, description), shape)

    def view_features(self, pairs: Sequence[Pair], augment: ImageAugment, view: int) -> Tensor:
        """Return features (N, F) of the pairs' images, augmented; the same for the same `view`. Raises ItemError.

        From disk, always: a tower that learns has no use for views of one moment.
        """
        settings = msgspec.json.encode(augment.config, order="sorted")
        description = f"image features, augmented view {view}"
        return self._cache.get(
            self._images.key(pairs, f"view {view}", settings),
            lambda: self._images.compute_view(pairs, augment, view, description),
            (len(pairs), self.model.image.feature_dim),
        )

    def text_features(self, texts: Sequence[str], name: str) -> Tensor:
        """Return features (M, G) of texts."""
        description = f"text features, {name}"
        if not self.keeps_texts:
            return self._texts.compute(texts, description)
        key, shape = self._texts.key(texts), (len(texts), self.model.text.feature_dim)
        return self._cache.get(key, lambda: self._texts.compute(texts, description), shape)
