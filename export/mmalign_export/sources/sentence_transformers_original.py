"""sentence-transformers' own pipeline: what an import of its models is proven against. Shapes: B batch, D embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mmalign._compat import quiet_loading
from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import first_sentence
from mmalign_export.sources.transformers_loading import LOADING_ERRORS

Vectors = NDArray[np.float32]


class SentenceTransformersOriginal:
    """An `Original`: a CLIP for images and texts, or for images alone beside a text model.

    `dim` is how many components are kept: as asked for, or else as a model's own configuration says. None: all.
    """

    def __init__(self, folder: Path, text_folder: Path | None, dim: int | None) -> None:
        self.version = sentence_transformers.__version__
        self.library = f"sentence-transformers {self.version}"
        self._images = _load(folder)
        self._texts = self._images if text_folder is None else _load(text_folder)
        stated = (model.truncate_dim for model in (self._images, self._texts) if model.truncate_dim)
        self.dim = dim or min(stated, default=None)
        self._images.truncate_dim = self._texts.truncate_dim = self.dim

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, by itself."""
        rows = (cast("Tensor", self._texts.preprocess([text])["input_ids"])[0] for text in texts)
        return [cast("list[int]", row.tolist()) for row in rows]

    def pixel_values(self, images: Sequence[Image.Image]) -> Vectors:
        """Return (B, 3, H, W) as its image processor makes them."""
        return cast("Vectors", cast("Tensor", self._images.preprocess(list(images))["pixel_values"]).numpy())

    def image_vectors(self, pixel_values: Vectors) -> Vectors:
        """Return (B, D), of any length."""
        with torch.inference_mode():
            found = self._images({"pixel_values": torch.from_numpy(pixel_values), "modality": "image"})
        return cast("Vectors", found["sentence_embedding"].numpy()[:, : self.dim])

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D), of any length, each text by itself."""
        rows = [self._texts.encode([text], show_progress_bar=False, convert_to_numpy=True) for text in texts]
        return cast("Vectors", np.concatenate(rows)[:, : self.dim])


def _load(folder: Path) -> SentenceTransformer:
    try:
        with quiet_loading():
            return SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": "float32"},  # not that of the file: weights of 16 bits are computed in 32 here
            ).eval()
    except LOADING_ERRORS as error:
        raise SourceError(
            f"{folder}: sentence-transformers cannot load it: {first_sentence(error)}. Fetch the model whole."
        ) from error
