"""What the growth scripts leave."""

from __future__ import annotations

import msgspec

from benchmarks.harness.environment import Environment
from benchmarks.harness.statistics import Spread


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After so many images: images/s since the first one, and resident memory."""

    num_images: int
    images_per_s: float
    resident_mb: float


class Growth(msgspec.Struct, forbid_unknown_fields=True):
    """One Embedder through many images, level by level."""

    environment: Environment
    bundle: str
    levels: list[Level]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place on a curve: batch size, tokens or threads, and items/s."""

    x: int
    items_per_s: Spread


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items/s of one model over one thing that is changed."""

    model: str
    kind: str
    over: str
    points: tuple[Point, ...]


class Curves(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All curves of one run."""

    environment: Environment
    curves: tuple[Curve, ...]
