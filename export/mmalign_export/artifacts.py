"""The artifacts that parity is measured on: the ONNX files as the runtime serves them, and the compiled towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.dual_model import DualModel, TowerFunction
from mmalign_export.parity import Artifact
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.spec import ONNX, Modality


def onnx_artifact(embedder: Embedder) -> Artifact:
    """Return a bundle as the runtime serves it, one batch a call; a batch that comes again is not run again.

    An import is held first to eager PyTorch and then to its library, by the same vectors of the same files.
    """

    @cache
    def images(paths: tuple[Path, ...]) -> NDArray[np.float32]:
        return embedder.encode_image(paths, batch_size=len(paths))

    @cache
    def texts(batch: tuple[str, ...]) -> NDArray[np.float32]:
        return embedder.encode_text(batch, batch_size=len(batch))

    return Artifact(ONNX, lambda paths: images(tuple(paths)), lambda batch: texts(tuple(batch)))


def torch_artifact(engine: str, model: DualModel, functions: Mapping[Modality, TowerFunction]) -> Artifact:
    """Return towers that torch runs, fed as the model's own: the same decoding, preprocessing graph and tokenizer."""

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        return functions["image"](*model.image.tensors(model.image.prepare(paths))).numpy()

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        return functions["text"](*model.text.tensors(model.text.prepare(texts))).numpy()

    return Artifact(engine, embed_images, embed_texts)
