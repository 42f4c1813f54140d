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
        self._embedder = load_embedder(request)
        self.versions = {name: version(name) for name in ("mmalign-runtime", "onnxruntime", "pillow", "tokenizers")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items; `batch_size` of the setting is only looked at where one is given."""
        encode = self._embedder.encode_image if kind == "image" else self._embedder.encode_text
        if setting.batch_size:
            return encode(items, batch_size=setting.batch_size)
        return encode(items)


def load_embedder(request: Load) -> Embedder:
    """Load the bundle. Raises MmalignError when it lacks the precision, or the engine is not installed."""
    bundle, threads = request.model.bundle, request.num_threads
    if request.engine == "onnxruntime":
        if request.spin_us != 0:
            _spin_for(request.spin_us)
        spins = request.spin_us != 0
        return Embedder.load(bundle, precision=request.precision, num_threads=threads, allow_spinning=spins)
    return Embedder.load(bundle, precision=request.precision, num_threads=threads, engine=request.engine)


def _spin_for(duration_us: int | None) -> None:
    engine._SPIN_US = str(-1 if duration_us is None else duration_us)  # -1: as long as onnxruntime does by itself
