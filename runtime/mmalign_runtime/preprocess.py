"""From pixels to `pixel_values`, by running the bundle's own preprocessing graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.image import Pixels
from mmalign_runtime.session import OnnxSession, SessionOptions

_INPUT_NAME = "pixels"


class Preprocessor:
    """Runs image_preprocess.onnx on the CPU: (H, W, 3) uint8 RGB -> (1, 3, S, S) float32."""

    def __init__(self, path: Path, num_threads: int) -> None:
        # Every image has another shape, so a memory plan made for the last one is no use for the next. The tower runs
        # right after, on threads of its own: threads spinning here would take its cores.
        options = SessionOptions("cpu", num_threads, reuse_memory_plan=False, allow_spinning=False)
        self.session = OnnxSession(path, options)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Resize, crop and normalise one image."""
        return self.session.run({_INPUT_NAME: pixels})  # (1, 3, S, S)
