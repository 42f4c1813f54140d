"""What a tower gives, held to what a bundle promises."""

from __future__ import annotations

import numpy as np

from mmalign_runtime.errors import EngineError
from mmalign_runtime.streaming import Vectors

# float16 keeps three digits; a tower that lost its normalisation is off by far more.
_LENGTH_BOUND = 5e-3


class UnitVectors:
    """Holds what a tower gives to what a bundle promises: (B, D) float32 of unit length, every number finite."""

    def __init__(self, embed_dim: int, name: str) -> None:
        self._embed_dim = embed_dim
        self._name = name

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return the vectors themselves. Raises EngineError when they are none that could go into an index."""
        if vectors.ndim != 2 or vectors.shape[1] != self._embed_dim or vectors.dtype != np.float32:
            seen = f"{vectors.shape} {vectors.dtype}"
            raise EngineError(f"{self._name} gave {seen}, expected (B, {self._embed_dim}) float32. Export it again.")
        moved = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0.0))
        if not moved <= _LENGTH_BOUND:  # also where it is no number
            reason = f"{self._name} gave a vector whose length is off by {moved:.2g}, expected 1"
            raise EngineError(f"{reason}: its weights or this provider are broken. Run `mmalign verify`.")
        return vectors
