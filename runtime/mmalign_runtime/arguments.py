"""What callers pass to an embedder, checked before anything is loaded or embedded."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import PurePath
from typing import get_args

import numpy as np

from mmalign_runtime.spec import ImageLimits, Modality


def as_count(value: object, name: str, *, otherwise: str = "") -> int:
    """Return a whole number of at least 1 as an int: of an int, a numpy integer, what has `__index__`.

    `otherwise` says what else the argument may be. Raises ValueError for anything else: a bool, a float, a text.
    """
    if not isinstance(value, bool | np.bool_):
        try:
            count = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            count = 0
        if count >= 1:
            return count
    raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1{otherwise}.")


def check_towers(towers: object) -> None:
    """Raise ValueError unless it is a sequence of names of towers, at least one."""
    names = get_args(Modality)
    if isinstance(towers, str) or not isinstance(towers, Sequence) or not towers or set(towers) - set(names):
        raise ValueError(f"towers is {towers!r}, expected a sequence with some of {', '.join(names)}.")


def as_limits(limits: object) -> ImageLimits | None:
    """Return limits whose numbers are ints and a float, None for None. Raises ValueError for anything else."""
    if limits is None:
        return None
    if not isinstance(limits, ImageLimits):
        raise ValueError(f"image_limits is a {type(limits).__name__}, expected ImageLimits(max_pixels=...).")
    counts = ("max_pixels", "max_bytes", "max_side")
    whole = {name: as_count(getattr(limits, name), f"image_limits: {name}") for name in counts}
    ratio = limits.max_aspect_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, float | int | np.integer | np.floating) or not ratio >= 1:
        raise ValueError(f"image_limits: max_aspect_ratio is {ratio!r}, expected a number of at least 1.")
    return ImageLimits(**whole, max_aspect_ratio=float(ratio))


def reject_single(items: object, name: str) -> None:
    """Raise TypeError for one item in the place of a list of them."""
    is_one = isinstance(items, str | bytes | bytearray | memoryview | PurePath) or hasattr(items, "read")
    is_one = is_one or hasattr(items, "getbands") or getattr(items, "ndim", 1) == 3  # a PIL image, an array of pixels
    if is_one:
        raise TypeError(f"{name} is a single {type(items).__name__}, expected a list: pass [{name}].")
