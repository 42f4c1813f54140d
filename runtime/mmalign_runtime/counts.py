"""Numbers of things, as callers pass them: an int, or another library's whole number."""

from __future__ import annotations

import operator

import numpy as np


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
