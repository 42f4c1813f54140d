"""Resident memory after images of 81 megapixels: python -m benchmarks.reliability large_images

One Embedder takes six PNGs of 9000 x 9000, a batch and one by one, beside small images. Between them the process should
be back where it was.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from benchmarks.harness.places import PHOTO, bundle_at_hand
from benchmarks.harness.processes import resident_mb
from benchmarks.reliability.record import Found, Row
from mmalign_runtime.embedder import Embedder

NUM_IMAGES, SIDE = 6, 9000
MAX_GROWTH_MB = 50
_NUM_SMALL = 24
_BLOCK = 100  # pixels of one colour, so that files are small and quickly made


class Level(msgspec.Struct, frozen=True):
    """Resident memory after a step."""

    after: str
    resident_mb: float


def make_images(folder: Path, side: int = SIDE) -> list[Path]:
    """Write PNGs of random squares."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(NUM_IMAGES)]
    for path in paths:
        colours = rng.integers(0, 256, (side // _BLOCK, side // _BLOCK, 3), np.uint8)
        Image.fromarray(colours.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)).save(path, compress_level=1)
    return paths


def watch(embedder: Embedder, paths: list[Path]) -> Iterator[Level]:
    """Embed, and yield the level after every step; the first is the one that the others are held to."""
    small = [Image.open(PHOTO).convert("RGB")] * _NUM_SMALL
    for batch_size in (1, None):
        embedder.encode_image(small, batch_size=batch_size)
    yield Level("small images", resident_mb())
    embedder.encode_image(paths)
    yield Level("large images in a batch", resident_mb())
    for path in paths:
        embedder.encode_image([path])
    yield Level("large images one by one", resident_mb())
    embedder.encode_image(small)
    yield Level("small images again", resident_mb())


def row_of(levels: Sequence[Level]) -> Row:
    growths = [level.resident_mb - levels[0].resident_mb for level in levels[1:]]
    measured = f"{levels[0].resident_mb:.0f} MB before; then {', '.join(f'{growth:+.0f}' for growth in growths)} MB"
    num_back = sum(growth <= MAX_GROWTH_MB for growth in growths)
    what = f"resident memory after {NUM_IMAGES} PNGs of {SIDE**2 // 10**6} megapixels"
    return Row(what, len(growths), num_back, measured)


def run(bundle: Path | None = None) -> Found:
    embedder = Embedder.load(bundle or bundle_at_hand(), towers=("image",))
    with tempfile.TemporaryDirectory() as folder:
        levels = list(watch(embedder, make_images(Path(folder))))
    for level in levels:
        print(f"{level.after}: {level.resident_mb:.0f} MB", file=sys.stderr)
    return [row_of(levels)], {"levels": levels}
