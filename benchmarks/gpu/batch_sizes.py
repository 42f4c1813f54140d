"""What changing batch sizes cost the image tower on a GPU: python -m benchmarks.gpu.batch_sizes BUNDLE OUT.json

A service's batches are of any size. cuDNN plans every convolution anew when the size differs from that of the run
before, and onnxruntime keeps no plan; a session for each of a few sizes is planned once. Both ways, and the load time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.towers import tower_feeds
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.results import write_result
from mmalign_runtime import Embedder
from mmalign_runtime.engine.runs import PlainRuns
from mmalign_runtime.engine.threads import available_threads

_NUM_CALLS = 60
_SAME = 8


class Way(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ms of loading the tower and its first vector, of calls of 8, and of calls of 1 to 32: medians, and the slowest.

    `images_per_s` are those of the calls of any size, together.
    """

    name: str
    load_ms: float
    same_size_ms: float
    any_size_ms: float
    slowest_ms: float
    images_per_s: int


class BatchSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measurement."""

    environment: Environment
    ways: tuple[Way, ...]


def measure(path: Path, name: str, *, one_session: bool, provider: str) -> Way:
    """Time one way to run."""
    start = time.perf_counter()
    with Embedder.load(path, provider=provider, towers=("image",)) as embedder:  # type: ignore[arg-type]
        session = embedder.image.session
        if one_session:
            session._runs = PlainRuns()  # type: ignore[attr-defined]
        largest = max(tower_feeds(embedder.bundle.spec.towers["image"]), key=lambda feeds: feeds["pixel_values"].shape)
        rows = largest["pixel_values"]

        def ms(size: int) -> float:
            feeds: Mapping[str, NDArray[np.generic]] = {"pixel_values": rows[:size]}
            begun = time.perf_counter()
            session.run(feeds)
            return (time.perf_counter() - begun) * 1000

        ms(1)
        load_ms = (time.perf_counter() - start) * 1000
        same = [ms(_SAME) for _ in range(_NUM_CALLS)][3:]
        sizes = random.Random(0).choices(range(1, len(rows) + 1), k=_NUM_CALLS)
        varied = [ms(size) for size in sizes]
    rounded = (round(float(each), 2) for each in (load_ms, np.median(same), np.median(varied), max(varied)))
    return Way(name, *rounded, round(sum(sizes) / sum(varied) * 1000))


def lines(found: BatchSizes) -> list[str]:
    """Return the table in Markdown."""
    rows = ["| way | load ms | calls of 8 ms | calls of 1 to 32 ms | slowest ms | images/s |", "|" + "---|" * 6]
    for way in found.ways:
        times = f"{way.same_size_ms:.2f} | {way.any_size_ms:.2f} | {way.slowest_ms:.1f} | {way.images_per_s:,}"
        rows.append(f"| {way.name} | {way.load_ms:.0f} | {times} |")
    return rows


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Time batches of any size.")
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("out", type=Path, help="the JSON file that gets the results")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cuda", help="cpu tries the script itself")
    options = parser.parse_args()
    watch = Watch("python -m benchmarks.gpu.batch_sizes", available_threads())
    asked = {"a session a size (the default)": False, "one session": True, "the default again": False}
    ways = tuple(
        measure(options.bundle, name, one_session=one, provider=options.provider) for name, one in asked.items()
    )
    found = BatchSizes(watch.card(), ways)
    write_result(found, options.out)
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
