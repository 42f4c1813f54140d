"""One way to make a tower of fewer bits: a function of what stays in float32."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from onnx import ModelProto

Build = Callable[[frozenset[str]], ModelProto]


class Recipe(msgspec.Struct, frozen=True):
    """One way to make a tower smaller; `layers` are what it can leave in float32, by name, in the order they run.

    `refused` says why it is only measured, and never offered. `fixes_products`: what its products read has fixed ranges
    of the calibration, and could have scales by token, so that it is as good as the calibration is like what will be
    served. Convolutions have no other.
    """

    name: str
    build: Build
    layers: tuple[str, ...] = ()
    refused: str = ""
    fixes_products: bool = False
