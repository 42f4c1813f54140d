from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mmalign_export.parity import onnx_artifact
from mmalign_runtime.embedder import Embedder


class Counting:
    """An embedder that notes its batches, and answers each image by its name and each text by its length."""

    def __init__(self) -> None:
        self.batches: list[tuple[object, ...]] = []

    def encode_image(self, paths: Sequence[Path], batch_size: int) -> NDArray[np.float32]:
        self.batches.append((*paths, batch_size))
        return np.array([[float(path.stem)] for path in paths], np.float32)

    def encode_text(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        self.batches.append((*texts, batch_size))
        return np.array([[len(text)] for text in texts], np.float32)


def test_a_batch_that_comes_again_is_not_run_again_and_another_is() -> None:
    embedder = Counting()
    artifact = onnx_artifact(cast("Embedder", embedder))
    one, two = Path("1.jpg"), Path("2.jpg")
    for _ in range(2):
        assert artifact.embed_images([one]).tolist() == [[1]]
        assert artifact.embed_images([two, one]).tolist() == [[2], [1]]
        assert artifact.embed_texts(["a"]).tolist() == [[1]]
    assert embedder.batches == [(one, 1), (two, one, 2), ("a", 1)]
