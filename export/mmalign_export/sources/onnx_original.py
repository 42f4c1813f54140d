"""What a pair of ONNX files is proven against: onnxruntime on the files as they came, with their own preprocessing.

Pixels are those of the library that the configuration is written for, tokens those of tokenizers on the tokenizer.json
beside the model.
Shapes: B batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding

from mmalign_export.sources.onnx_tower import OnnxTower

Vectors = NDArray[np.float32]


class OnnxOriginal(msgspec.Struct, frozen=True, kw_only=True):
    """The two files, how a picture becomes pixels (1, 3, H, W), and a text tokens.

    `outputs` are the outputs that the library takes for the vectors of images and of texts.
    """

    image: OnnxTower
    text: OnnxTower
    pixels: Callable[[Image.Image], NDArray[np.float32]]
    tokens: Callable[[str], Encoding]
    outputs: tuple[str, str]

    @property
    def library(self) -> str:
        """onnxruntime and its version: the files run there as they came."""
        return f"onnxruntime {onnxruntime.__version__}"

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, by itself."""
        return [list(self.tokens(text).ids) for text in texts]

    def pixel_values(self, images: Sequence[Image.Image]) -> Vectors:
        """Return (B, 3, H, W)."""
        return np.concatenate([self.pixels(image) for image in images])

    def image_vectors(self, pixel_values: Vectors) -> Vectors:
        """Return (B, D), of any length."""
        return self.image.run({"pixel_values": pixel_values}, self.outputs[0])

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D), of any length, each text by itself."""
        rows = []
        for text in texts:
            found = self.tokens(text)
            arrays = {"input_ids": np.array([found.ids], np.int64), "attention_mask": np.array([found.attention_mask])}
            rows.append(self.text.run(arrays, self.outputs[1]))
        return np.concatenate(rows)
