"""Memory on the host that goes round: given out, and taken back when nobody looks at it any more.

Beside a CUDA device it is page-locked where onnxruntime offers that: the device then reads it directly, and the driver
need not copy it first. Images are prepared straight into it. Page-locking takes milliseconds, so nothing is given back
to the system between two streams of images.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.providers import ResolvedProvider, import_onnxruntime, ort_name

if TYPE_CHECKING:
    from onnxruntime import OrtMemoryInfo, OrtValue

# A stream of images has two batches in hand, so this is enough for two callers. What more of them need is let go.
_MOST_KEPT = 4


class HostMemory:
    """Gives out float32 arrays for what goes to one provider's device. Safe to call from many threads at once."""

    def __init__(self, provider: ResolvedProvider) -> None:
        self._pinned = _page_locked(provider)
        self._free: dict[tuple[int, ...], deque[OrtValue]] = {}

    @property
    def is_pinned(self) -> bool:
        """Whether the memory is page-locked."""
        return self._pinned is not None

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of that shape, its contents left from whoever had it. It is taken back with its last view."""
        free = self._free.setdefault(shape, deque(maxlen=_MOST_KEPT))
        try:
            value = free.pop()
        except IndexError:
            value = self._allocate(shape)
        array: NDArray[np.float32] = value.numpy()  # a view: the value keeps the memory
        weakref.finalize(array, free.append, value).atexit = False
        return array

    def _allocate(self, shape: tuple[int, ...]) -> OrtValue:
        values = import_onnxruntime().OrtValue
        if self._pinned is None:
            found: OrtValue = values.ortvalue_from_shape_and_type(shape, np.float32)
        else:
            found = values.ortvalue_from_shape_and_type(shape, np.float32, memory_info=self._pinned)
        return found


def _page_locked(provider: ResolvedProvider) -> OrtMemoryInfo | None:
    """Return what page-locked memory is called here; None where onnxruntime offers none, as before 1.29."""
    if provider != "cuda":
        return None
    ort = import_onnxruntime()
    devices = (device for device in ort.get_ep_devices() if device.ep_name == ort_name(provider))
    first = next(devices, None)
    return None if first is None else first.memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
