"""open_clip's own pipeline: what an import of its models is proven against.

Shapes: B batch, D embedding, H and W image sides.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from mmalign_export.sources.open_clip_tokenizer import OpenClipTokenizer

_BATCH = 16


class DualModule(Protocol):
    """What every model of open_clip offers."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Return (B, D) of pixel values."""

    def encode_text(self, text: Tensor) -> Tensor:
        """Return (B, D) of ids, padded to the context."""


class OpenClipOriginal:
    """An `Original`: open_clip's tokenizer, transform and forward, on its own modules."""

    def __init__(self, module: DualModule, tokenizer: OpenClipTokenizer, preprocessing: PreprocessCfg) -> None:
        self.library = f"open_clip {open_clip.__version__}"
        self._module = module
        self._tokenizer = tokenizer.original
        self._unreplaced = copy.copy(tokenizer.original)
        if isinstance(self._unreplaced, HFTokenizer):
            self._unreplaced.strip_sep_token = False  # ids that the tower replaces are compared as they were
        self._transform = image_transform_v2(preprocessing, is_train=False)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, padded to the context, before any of them is replaced."""
        return cast("list[list[int]]", self._unreplaced(list(texts)).tolist())

    def pixel_values(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (B, 3, H, W). Pictures are resized as they are stored, and made RGB after that."""
        return cast("NDArray[np.float32]", torch.stack([self._transform(image) for image in images]).numpy())

    def image_vectors(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) of any length."""
        with torch.inference_mode():
            vectors = self._module.encode_image(torch.from_numpy(pixel_values))
        return cast("NDArray[np.float32]", vectors.numpy())

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (B, D) of any length; every text at the whole context, as open_clip runs it."""
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                found.append(self._module.encode_text(self._tokenizer(list(texts[start : start + _BATCH]))))
        return cast("NDArray[np.float32]", torch.cat(found).numpy())
