"""The artifacts that parity is measured on: the ONNX files as the runtime serves them, and the compiled towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.run import Run
from mmalign_export.parity import Artifact
from mmalign_export.towers import TowerFunction
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ONNX


def onnx_artifact(folder: Path) -> Artifact:
    """Return the bundle in `folder` as the runtime serves it on the CPU, one batch a call."""
    embedder = Embedder.load(folder, provider="cpu", verify=None)  # just written

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        return embedder.encode_image(list(paths), batch_size=len(paths))

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        return embedder.encode_text(texts, batch_size=len(texts))

    return Artifact(ONNX, embed_images, embed_texts)


def torch_artifact(engine: str, run: Run, image: TowerFunction, text: TowerFunction) -> Artifact:
    """Return towers that torch runs, fed by the same decoding, preprocessing graph and tokenizer."""
    preprocess, tokenizer = run.preprocessor(), run.text_tokenizer()

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        prepared = [preprocess(decode_image(path, run.config.image)) for path in paths]
        return image(torch.from_numpy(np.concatenate(prepared))).numpy()

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer.encode(texts)
        return text(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)).numpy()

    return Artifact(engine, embed_images, embed_texts)
