"""How torch works on a CPU: how it is imported, how its threads wait, and what becomes of the memory that it frees."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's parameters, as malloc.h of glibc numbers them.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


@contextmanager
def importing_torch() -> Iterator[None]:
    """Import torch and what is built on it, for the life of the process: around the imports of a verb.

    Its threads wait as `wait_without_spinning` says. What is imported is not looked through for garbage, neither now
    nor later: there is none among half a million objects, and looking took a quarter of the time (measured).
    """
    wait_without_spinning()
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    atexit.register(gc.unfreeze)  # the interpreter takes them apart at its end: triton lists what is left as leaked
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def wait_without_spinning() -> None:
    """Let torch's threads sleep at the end of an operation, unless OMP_WAIT_POLICY says otherwise.

    By default they spin, which costs nothing while all cores are free. With another process on one of two cores it
    made EfficientNet-Lite0 and heads of MLPs six times slower than this does (measured). To be called before torch is
    imported, which is when OpenMP reads it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def keep_freed_memory() -> None:
    """Let the C library keep large blocks for the next step; nothing where it is not glibc, or told otherwise.

    By default glibc gives blocks of more than 32 MB back to the system, which are mapped and zeroed page by page when
    the next step asks for them: half of the time of a training step of EfficientNet-Lite0 with 32 images, which this
    takes from 143 to 78 ms an image, for 8% more memory at the peak (measured, two threads).
    """
    told = "MALLOC_MMAP_MAX_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" and not told else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
