"""Resident memory after images of 81 megapixels: python -m benchmarks.reliability large_images

One Embedder takes six PNGs of 9000 x 9000, a batch and one by one, beside small images. Between them the process should
be back where it was. What that costs is timed in turns: the preprocessing graph on images of usual sizes, with and
without onnxruntime's arena, as a share of the time that decoding a PNG and preparing it takes.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from benchmarks.harness.interleave import interleaved, timed
from benchmarks.harness.places import PHOTO, bundle_at_hand
from benchmarks.harness.processes import resident_mb
from benchmarks.harness.statistics import median_ms
from benchmarks.reliability.record import Row, record
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageTower

NUM_IMAGES, SIDE = 6, 9000
MAX_GROWTH_MB = 50
MAX_COST = 0.03
_SIZES = ((640, 480), (1600, 1200), (4000, 3000))
_NUM_TURNS = 30
_NUM_SMALL = 24
_BLOCK = 100  # pixels of one colour, so that files are small and quickly made


class Level(msgspec.Struct, frozen=True):
    """Resident memory after a step."""

    after: str
    resident_mb: float


class Pace(msgspec.Struct, frozen=True):
    """Medians over the turns, on one thread, of decoding a PNG of one size and of the preprocessing graph on it."""

    size: tuple[int, int]
    decoding_ms: float
    without_arena_ms: float
    with_arena_ms: float

    @property
    def cost(self) -> float:
        """What the arena would save, as a share of decoding and preparing with it."""
        return (self.without_arena_ms - self.with_arena_ms) / (self.decoding_ms + self.with_arena_ms)


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


def pace(embedder: Embedder, size: tuple[int, int]) -> Pace:
    """Time the graph in turns, as the embedder runs it and with the arena."""
    preprocess = embedder.image.preprocess
    without = preprocess.session
    source = embedder.bundle.source(embedder.bundle.spec.tower("image", ImageTower).preprocess)
    kept = OnnxSession(source, "with arena", msgspec.structs.replace(without.options, keep_memory=True))
    buffer = io.BytesIO()
    Image.open(PHOTO).convert("RGB").resize(size).save(buffer, "PNG")
    decode = partial(decode_image, buffer.getvalue(), embedder.image.spec)
    feeds = {"pixels": decode()}  # (H, W, 3)
    calls: dict[str, Callable[[], object]] = {
        "decoding": decode,
        "without": partial(without.run, feeds),
        "kept": partial(kept.run, feeds),
    }
    timers = {name: partial(timed, call) for name, call in calls.items()}
    laps = interleaved(timers, _NUM_TURNS, random.Random(0), num_untimed=1)
    return Pace(size, *(median_ms(laps[name]) for name in calls))


def rows_of(levels: Sequence[Level], paces: Sequence[Pace]) -> list[Row]:
    """Return the lines of the table."""
    growths = [level.resident_mb - levels[0].resident_mb for level in levels[1:]]
    ends = f"{levels[0].resident_mb:.0f} MB before; then {', '.join(f'{growth:+.0f}' for growth in growths)} MB"
    costs = ", ".join(f"{found.cost:+.1%} at {found.size[0]}x{found.size[1]}" for found in paces)
    num_back = sum(growth <= MAX_GROWTH_MB for growth in growths)
    num_cheap = sum(found.cost <= MAX_COST for found in paces)
    return [
        Row(f"resident memory after {NUM_IMAGES} PNGs of {SIDE**2 // 10**6} megapixels", len(growths), num_back, ends),
        Row("time of decoding and preparing a PNG, without an arena", len(paces), num_cheap, costs),
    ]


def run(bundle: Path | None = None) -> None:
    """Embed, watch, time, and record."""
    embedder = Embedder.load(bundle or bundle_at_hand(), towers=("image",))
    with tempfile.TemporaryDirectory() as folder:
        levels = list(watch(embedder, make_images(Path(folder))))
    for level in levels:
        print(f"{level.after}: {level.resident_mb:.0f} MB", file=sys.stderr)
    paces = [pace(embedder, size) for size in _SIZES]
    record("large_images", rows_of(levels, paces), {"levels": levels, "paces": paces})
