"""From pixels to `pixel_values`, by running the bundle's own preprocessing graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.freed_memory import give_back_freed_memory
from mmalign_runtime.image import Pixels

INPUT_NAME = "pixels"
# Decoding an image of so many values (5.6 megapixels) takes a hundred times what giving its memory back does.
_LARGE = 2**24


class Preprocessor:
    """Runs image_preprocess.onnx on the CPU: (H, W, 3) uint8 RGB -> (1, 3, S, S) float32.

    With onnxruntime, whatever engine the towers have: the pixels are part of the bundle.
    What decoding and preparing a large image needed is given back to the system, not kept for the next one.
    """

    def __init__(self, source: FileSource, pool: Pool) -> None:
        # The graph is many short steps: a second thread gains next to nothing. Every image has another shape, so a
        # memory plan made for the last one is of no use for the next, and memory kept for it may be hundreds of MB. One
        # image does not fill the pool, so it does not wait for its turn: it is prepared beside a tower's run.
        options = SessionOptions(
            "cpu", pool.with_threads(1), reuse_memory_plan=False, keep_memory=False, takes_turns=False
        )
        self.session = OnnxSession(source, "the preprocessing graph", options)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Resize, crop and normalise one image, on the calling thread alone. Many threads may call at once."""
        pixel_values = self.session.run({INPUT_NAME: pixels})  # (1, 3, S, S)
        if pixels.size > _LARGE:
            give_back_freed_memory()
        return pixel_values

    def close(self) -> None:
        """Let go of the graph."""
        self.session.close()
