"""Resident memory over many images and texts: python -m benchmarks.reliability memory --images 20000 --texts 200000

One Embedder, images of mixed sizes and formats cycled through it, then texts of mixed lengths. The level after the
first 1,000 is what the rest is held to.
"""

import io
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import msgspec
from PIL import Image

from benchmarks.harness.places import PHOTO, bundle_at_hand
from benchmarks.harness.processes import resident_mb
from benchmarks.reliability.record import Found, Row
from mmalign_runtime.embedder import Embedder

NUM_IMAGES, NUM_TEXTS = 20_000, 200_000
EVERY = 1000
MAX_DRIFT = 0.05
_POOL_SIZE = 60
# One file in so many is a photograph of 12 megapixels; the others have sides between these two, small ones most often.
_LARGE_ONE_IN = 30
_LARGE = (4000, 3000)
_SIDES = (16, 1000)
_WORDS = ("a", "the", "photo", "of", "dog", "cat", "red", "über", "狗", "🐶", "running", "beach", "2026", "#1")
# Captions and queries, short ones most often; one text in so many is far past any context length. They go one a call:
# every length is another shape to the tower, and a batch padded to the longest would have few of them.
_MAX_WORDS = 30
_LONG_ONE_IN, _LONG_WORDS = 50, 400
_TEXT_BATCH_SIZE = 1

Kind = Literal["image", "text"]


class Level(msgspec.Struct, frozen=True):
    """Resident memory after so many items."""

    kind: Kind
    num_items: int
    resident_mb: float


def image_pool(seed: int) -> list[bytes]:
    rng, pool = random.Random(seed), []
    photo = Image.open(io.BytesIO(PHOTO.read_bytes())).convert("RGB")
    for number in range(_POOL_SIZE):
        low, high = _SIDES
        sides = [int(low * (high / low) ** (rng.random() ** 2)) for _ in range(2)]
        size = _LARGE if number % _LARGE_ONE_IN == 0 else (sides[0], sides[1])
        buffer, kind = io.BytesIO(), ("JPEG", "PNG", "WEBP")[0 if size == _LARGE else number % 3]
        photo.resize(size).save(buffer, kind)
        pool.append(buffer.getvalue())
    return pool


def varied_texts(seed: int) -> Iterator[str]:
    """Yield texts without end, from one word to far past any context length."""
    rng = random.Random(seed)
    while True:
        num_words = _LONG_WORDS if rng.randrange(_LONG_ONE_IN) == 0 else int(_MAX_WORDS ** rng.random())
        yield " ".join(rng.choices(_WORDS, k=num_words))


def watch(kind: Kind, stream: Callable[[], Iterator[object]], every: int) -> Iterator[Level]:
    """Run a stream of results to its end, and yield the level after every so many."""
    for number, _ in enumerate(stream(), start=1):
        if number % every == 0:
            level = Level(kind, number, resident_mb())
            print(f"{kind} {number}: {level.resident_mb:.0f} MB", file=sys.stderr)
            yield level


def drift(levels: Sequence[Level]) -> float:
    """Return how far the levels leave the first, as a share of it; the one furthest away, with its sign."""
    first = levels[0].resident_mb
    return max((level.resident_mb / first - 1 for level in levels), key=abs)


def _row(kind: Kind, levels: Sequence[Level], num_items: int) -> Row:
    of = [level for level in levels if level.kind == kind]
    ends = ", ".join(f"{level.resident_mb:.0f} MB after {level.num_items:,}" for level in (of[0], of[-1]))
    good = sum(abs(drift([of[0], level])) <= MAX_DRIFT for level in of)
    return Row(f"resident memory over {num_items:,} {kind}s", len(of), good, f"{ends}; furthest away {drift(of):+.1%}")


def run(
    bundle: Path | None = None,
    images: int = NUM_IMAGES,
    texts: int = NUM_TEXTS,
    every: int = EVERY,
    engine: str = "onnxruntime",
    seed: int = 0,
) -> Found:
    if min(images, texts) < every:
        raise SystemExit(f"--images and --texts must be at least --every, {every}")
    embedder = Embedder.load(bundle or bundle_at_hand(), engine=engine)
    pictures = partial(embedder.stream_images, islice(cycle(image_pool(seed)), images))
    words = partial(embedder.stream_texts, islice(varied_texts(seed), texts), batch_size=_TEXT_BATCH_SIZE)
    levels = [*watch("image", pictures, every), *watch("text", words, every)]
    return [_row("image", levels, images), _row("text", levels, texts)], {"levels": levels}
