"""The vectors of pairs by a model as it stands, again and again while it learns: for validation, and to mine negatives.

Shapes: N images, M texts, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.data import Pair
from mmalign.features import ModelFeatures
from mmalign.model import DualEncoder


class EmbeddedPairs:
    """Embeds the images of pairs, and texts. Features of frozen towers are read once, when it is made."""

    def __init__(
        self, model: DualEncoder, features: ModelFeatures, pairs: Sequence[Pair], texts: Sequence[str], name: str
    ) -> None:
        self._model = model
        self._features = features
        self._pairs, self._texts, self._name = pairs, texts, name
        # Read now and not at the first use, so that a damaged image is found before an epoch is spent.
        self._frozen_images = self._images() if features.images.is_kept else None
        self._frozen_texts = self._text_features() if features.texts.is_kept else None

    def embed(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of the images (N, D) and of the texts (M, D), on the model's device, without gradient."""
        model = self._model.eval()
        model.join_members()
        images = self._images() if self._frozen_images is None else self._frozen_images  # (N, F)
        texts = self._text_features() if self._frozen_texts is None else self._frozen_texts  # (M, G)
        with torch.inference_mode():
            return model.project_image(images.to(model.device)), model.project_text(texts.to(model.device))

    def _images(self) -> Tensor:
        return self._features.images.of(self._pairs, self._name)

    def _text_features(self) -> Tensor:
        return self._features.texts.of(self._texts, self._name)
