"""Ours, through its public door only: Embedder.load, encode_image, encode_text, with their defaults."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from benchmarks.against.protocol import Kind, Load, Setting
from mmalign_runtime import Embedder
from mmalign_runtime.engine import onnxruntime as engine


class MmalignPeer:
    """An Embedder of one precision and engine."""

    def __init__(self, request: Load) -> None:
        spins = request.spin_us != 0
        if spins:  # -1: as long as onnxruntime does by itself
            engine._SPIN_US = str(-1 if request.spin_us is None else request.spin_us)
        self._embedder = Embedder.load(
            request.model.bundle,
            precision=request.precision,
            num_threads=request.num_threads,
            engine=request.engine,
            allow_spinning=spins if request.engine == "onnxruntime" else None,
        )
        self.versions = {name: version(name) for name in ("mmalign-runtime", "onnxruntime", "pillow", "tokenizers")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items; `batch_size` of the setting is only looked at where one is given."""
        encode = self._embedder.encode_image if kind == "image" else self._embedder.encode_text
        if setting.batch_size:
            return encode(items, batch_size=setting.batch_size)
        return encode(items)
