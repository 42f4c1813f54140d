"""Items/s over batch size, text length and threads: python -m benchmarks.growth.curves --out RESULT.json

The points of a curve take turns, so that a machine that slows down does so for all of them alike.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.against.images import build_image_sets
from benchmarks.against.models import DEMO, REFERENCE
from benchmarks.against.texts import build_text_sets
from benchmarks.growth.results import Curve, Curves, Point
from benchmarks.harness.environment import Watch
from benchmarks.harness.interleave import interleaved, timed
from benchmarks.harness.places import CACHE, ROOT
from benchmarks.harness.results import write_result
from benchmarks.harness.statistics import spread
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
NUM_TOKENS = (8, 16, 32, 64, 128)
NUM_ROUNDS = 5
_NUM_IMAGES, _NUM_TEXTS = 64, 32
# A word that is one token, and the two tokens that open and close every text.
_WORD, _NUM_SPECIAL = "cat", 2

Call = Callable[[], object]


def measure(model: str, kind: str, over: str, calls: dict[int, Call], num_items: int, num_rounds: int) -> Curve:
    """Time one call of every point a round, after one that is not timed."""
    timers = {x: partial(timed, call) for x, call in calls.items()}
    seconds = interleaved(timers, num_rounds, random.Random(0), num_untimed=1)
    points = tuple(Point(x, spread(num_items / np.array(found))) for x, found in seconds.items())
    print(model, kind, over, [(point.x, round(point.items_per_s.p50, 1)) for point in points], flush=True)
    return Curve(model, kind, over, points)


def curves(model: str, bundle: Path, cache: Path, num_rounds: int) -> list[Curve]:
    """Return all curves of one bundle."""
    images = list(islice(cycle(build_image_sets(cache)["thumbnails"]), _NUM_IMAGES))
    texts = build_text_sets(cache)["captions"]
    with ExitStack() as stack:
        threads = range(1, available_threads() + 1)
        embedders = {n: stack.enter_context(Embedder.load(bundle, num_threads=n)) for n in threads}
        full = embedders[max(threads)]
        return [
            measure(model, "image", "batch size", _image_batches(full, images), len(images), num_rounds),
            measure(model, "text", "batch size", _text_batches(full, texts), len(texts), num_rounds),
            measure(model, "text", "tokens", _lengths(full), _NUM_TEXTS, num_rounds),
            measure(model, "image", "threads", _each(embedders, "encode_image", images), len(images), num_rounds),
            measure(model, "text", "threads", _each(embedders, "encode_text", texts), len(texts), num_rounds),
        ]


def _each(embedders: dict[int, Embedder], encode: str, items: Sequence[object]) -> dict[int, Call]:
    return {number: partial(getattr(embedder, encode), items) for number, embedder in embedders.items()}


def _image_batches(embedder: Embedder, images: Sequence[Path]) -> dict[int, Call]:
    return {size: partial(embedder.encode_image, images, batch_size=size) for size in BATCH_SIZES}


def _text_batches(embedder: Embedder, texts: Sequence[str]) -> dict[int, Call]:
    sizes = [size for size in BATCH_SIZES if size <= len(texts)]
    return {size: partial(embedder.encode_text, texts, batch_size=size) for size in sizes}


def _lengths(embedder: Embedder) -> dict[int, Call]:
    texts = {length: [" ".join([_WORD] * (length - _NUM_SPECIAL))] * _NUM_TEXTS for length in NUM_TOKENS}
    return {length: partial(embedder.encode_text, found) for length, found in texts.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Items/s over batch size, text length and threads.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that gets the results")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo/bundle", help="the demo's bundle")
    parser.add_argument("--reference", type=Path, help="a bundle of the reference architecture, to be measured as well")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder with the image sets")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="timed calls of every point")
    options = parser.parse_args()
    watch = Watch("python -m benchmarks.growth.curves", available_threads())
    found: list[Curve] = []
    for name, bundle in ((DEMO, options.demo), (REFERENCE, options.reference)):
        if bundle is not None:
            found += curves(name, bundle, options.cache, options.rounds)
    write_result(Curves(watch.card(), tuple(found)), options.out)


if __name__ == "__main__":
    main()
