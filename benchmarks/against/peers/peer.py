"""What every peer offers the worker, and how a call is timed."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.against.protocol import Kind, Setting


class Timed(msgspec.Struct, frozen=True):
    """Vectors (N, D) float32 of a call, and the seconds it took for each item."""

    vectors: NDArray[np.float32]
    seconds_per_item: float


class Peer(Protocol):
    """A tool that is loaded: paths of images or texts in, unit vectors (N, D) out."""

    versions: dict[str, str]

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items."""
        ...


def timed_call(peer: Peer, kind: Kind, items: Sequence[str], setting: Setting) -> Timed:
    """Time one call from items to vectors; a peer with `timed` says itself what of its call counts."""
    own = getattr(peer, "timed", None)
    if own is not None:
        found: Timed = own(kind, items, setting)
        return found
    start = perf_counter()
    vectors = peer.encode(kind, items, setting)
    return Timed(vectors, (perf_counter() - start) / len(items))
