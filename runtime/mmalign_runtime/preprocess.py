"""From pixels to `pixel_values`, by running the bundle's own preprocessing graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.image import Pixels

_INPUT_NAME = "pixels"


class Preprocessor:
    """Runs image_preprocess.onnx on the CPU: (H, W, 3) uint8 RGB -> (1, 3, S, S) float32.

    With onnxruntime, whatever engine the towers have: the pixels are part of the bundle.
    """

    def __init__(self, source: FileSource, pool: Pool) -> None:
        # Every image has another shape, so a memory plan made for the last one is no use for the next. One image does
        # not fill the pool, so it does not wait for its turn: it is prepared beside a tower's run.
        options = SessionOptions("cpu", pool, reuse_memory_plan=False, takes_turns=False)
        self.session = OnnxSession(source, "the preprocessing graph", options)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Resize, crop and normalise one image."""
        return self.session.run({_INPUT_NAME: pixels})  # (1, 3, S, S)
