"""How torch's threads wait. To be asked for before torch is imported, which is when OpenMP reads it."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let torch's threads sleep at the end of an operation, unless OMP_WAIT_POLICY says otherwise.

    By default they spin, which costs nothing while all cores are free. With another process on one of two cores it
    made EfficientNet-Lite0 and heads of MLPs six times slower than this does (measured).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
