"""Validation during training: recall on concepts that are not trained on.

Features of frozen towers are there before training starts. Shapes: N images, M captions, F, G features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.config import EvaluateConfig
from mmalign.data import Pair
from mmalign.errors import TrainingError
from mmalign.metrics import Validation
from mmalign.model import DualEncoder
from mmalign.pool import build_pool
from mmalign.retrieval import is_finite, recall_both_ways
from mmalign.towers import Towers


class Validator:
    """Scores a model on the validation pairs, all sources in one pool."""

    def __init__(self, model: DualEncoder, config: EvaluateConfig, pairs: Sequence[Pair], towers: Towers) -> None:
        self._model = model
        self._towers = towers
        self._pool = build_pool(pairs, config.captions)
        # Read now and not at the first validation, so that a damaged image is found before an epoch is spent.
        self._frozen_images = self._images() if towers.keeps_images else None
        self._frozen_texts = self._texts() if towers.keeps_texts else None

    def validate(self) -> Validation:
        """Return the recalls of the model as it stands. Raises TrainingError when its vectors are not finite."""
        model = self._model.eval()
        device = model.device
        images = self._images() if self._frozen_images is None else self._frozen_images  # (N, F)
        texts = self._texts() if self._frozen_texts is None else self._frozen_texts  # (M, G)
        with torch.inference_mode():
            image_embeds = model.project_image(images.to(device))  # (N, D)
            text_embeds = model.project_text(texts.to(device))  # (M, D)
        if not (is_finite(image_embeds) and is_finite(text_embeds)):
            raise TrainingError(
                "vectors of validation pairs are not finite, so the model is not saved. Lower the learning rates in "
                "optim, or look for images and captions that are out of the ordinary."
            )
        to_text, to_image = recall_both_ways(image_embeds, text_embeds, self._pool.relevant)
        return Validation(to_text.at_1, to_image.at_1, (to_text.mean() + to_image.mean()) / 2)

    def _images(self) -> Tensor:
        return self._towers.image_features(self._pool.pairs, "validation")

    def _texts(self) -> Tensor:
        return self._towers.text_features(self._pool.texts, "validation")
