"""Validation during training: recall on concepts that are not trained on, features of frozen towers taken from the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.data import Pair
from mmalign.features import FeatureCache, ImageFeatures, TextFeatures
from mmalign.metrics import Validation
from mmalign.model import is_frozen
from mmalign.pool import build_pool
from mmalign.retrieval import recall
from mmalign.run import Run


class Validator:
    """Scores the run's model on the validation pairs, all sources in one pool."""

    def __init__(
        self,
        run: Run,
        pairs: Sequence[Pair],
        image_features: ImageFeatures,
        text_features: TextFeatures,
        cache: FeatureCache,
    ) -> None:
        self._run = run
        self._pool = build_pool(pairs, run.config.evaluate.captions)
        self._image_features = image_features
        self._text_features = text_features
        self._cache = cache
        self._frozen_images: Tensor | None = None
        self._frozen_texts: Tensor | None = None

    def validate(self) -> Validation:
        """Return the recalls of the model as it stands."""
        model = self._run.model
        model.eval()
        device = model.logit_scale.device
        with torch.inference_mode():
            image_embeds = model.project_image(self._images().to(device))  # (N, D)
            text_embeds = model.project_text(self._texts().to(device))  # (M, D)
            similarity = (image_embeds @ text_embeds.T).cpu()  # (N, M)
        to_text = recall(similarity, self._pool.relevant)
        to_image = recall(similarity.T, self._pool.relevant.T)
        return Validation(to_text.at_1, to_image.at_1, (to_text.mean() + to_image.mean()) / 2)

    def _images(self) -> Tensor:
        if self._frozen_images is None:
            pairs = self._pool.pairs
            features = self._image_features.compute
            if not is_frozen(self._run.model.image_tower):
                return features(pairs, "image features, validation")
            key = self._image_features.key(pairs, "clean")
            self._frozen_images = self._cache.get(key, lambda: features(pairs, "image features, validation").numpy())
        return self._frozen_images

    def _texts(self) -> Tensor:
        if self._frozen_texts is None:
            texts = self._pool.texts
            features = self._text_features.compute
            if not is_frozen(self._run.model.text_tower):
                return features(texts, "text features, validation")
            key = self._text_features.key(texts, self._run.tokenizer.to_str())
            self._frozen_texts = self._cache.get(key, lambda: features(texts, "text features, validation").numpy())
        return self._frozen_texts
