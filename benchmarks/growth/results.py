"""What the growth scripts leave."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.against.results import Spread
from benchmarks.reference.environment import Environment
from mmalign_runtime.atomic import replacing


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


def write(results: Growth | Curves, path: Path) -> None:
    """Write results as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read_growth(path: Path) -> Growth:
    """Read the result of images.py. Raises msgspec.ValidationError when the file is another thing."""
    return msgspec.json.decode(path.read_bytes(), type=Growth)


def read_curves(path: Path) -> Curves:
    """Read the result of curves.py. Raises msgspec.ValidationError when the file is another thing."""
    return msgspec.json.decode(path.read_bytes(), type=Curves)
