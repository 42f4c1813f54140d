"""From pixels to `pixel_values`, by running the bundle's own preprocessing graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.image import Pixels
from mmalign_runtime.once import Once

_INPUT_NAME = "pixels"


class Preprocessor:
    """Runs image_preprocess.onnx on the CPU: (H, W, 3) uint8 RGB -> (1, 3, S, S) float32.

    With onnxruntime, whatever engine the towers have: the pixels are part of the bundle.
    """

    def __init__(self, source: FileSource, pool: Pool) -> None:
        self.session = _session(source, pool)
        # Two threads for one image take a tenth more of the processors' time than one: worth it while others are idle.
        self._one_thread = Once(lambda: _session(source, Pool(1, pool.turnstile)))

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Resize, crop and normalise one image."""
        return self.session.run({_INPUT_NAME: pixels})  # (1, 3, S, S)

    def beside_others(self, pixels: Pixels) -> NDArray[np.float32]:
        """Do the same on the calling thread alone: others prepare other images meanwhile."""
        return self._one_thread.get().run({_INPUT_NAME: pixels})  # (1, 3, S, S)

    def close(self) -> None:
        """Let go of the graph."""
        for session in (self.session, self._one_thread.made):
            if session is not None:
                session.close()


def _session(source: FileSource, pool: Pool) -> OnnxSession:
    # Every image has another shape, so a memory plan made for the last one is no use for the next. One image does
    # not fill the pool, so it does not wait for its turn: it is prepared beside a tower's run.
    options = SessionOptions("cpu", pool, reuse_memory_plan=False, takes_turns=False)
    return OnnxSession(source, "the preprocessing graph", options)
