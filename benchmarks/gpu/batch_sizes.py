"""What changing batch sizes cost the image tower on a GPU: python -m benchmarks.gpu.batch_sizes BUNDLE OUT.json

A service's batches are of any size. cuDNN plans every convolution anew when the size differs from that of the run
before, and onnxruntime keeps no plan; a session for each of a few sizes is planned once. Both ways, and the load time.
"""

import random
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from typer import Argument, Option

from benchmarks.gpu.towers import Device, tower_feeds
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.timing import timed
from mmalign_runtime import Embedder
from mmalign_runtime.engine.runs import PlainRuns

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


def measure(path: Path, name: str, *, one_session: bool, provider: Device) -> Way:
    start = time.perf_counter()
    with Embedder.load(path, provider=provider, towers=("image",)) as embedder:
        session = embedder.image.session
        if one_session:
            session._runs = PlainRuns()  # type: ignore[attr-defined]
        largest = max(tower_feeds(embedder.bundle.spec.towers["image"]), key=lambda feeds: feeds["pixel_values"].shape)
        rows = largest["pixel_values"]

        def ms(size: int) -> float:
            return 1000 * timed(partial(session.run, {"pixel_values": rows[:size]}))

        ms(1)
        load_ms = (time.perf_counter() - start) * 1000
        same = [ms(_SAME) for _ in range(_NUM_CALLS)][3:]
        sizes = random.Random(0).choices(range(1, len(rows) + 1), k=_NUM_CALLS)
        varied = [ms(size) for size in sizes]
    rounded = (round(float(each), 2) for each in (load_ms, np.median(same), np.median(varied), max(varied)))
    return Way(name, *rounded, round(sum(sizes) / sum(varied) * 1000))


def main(
    bundle: Annotated[Path, Argument(help="a bundle's folder")],
    out: Annotated[Path, Argument(help="the JSON file that gets the results")],
    provider: Annotated[Device, Option(help="cpu tries the script itself")] = "cuda",
) -> None:
    watch = Watch()
    asked = {"a session a size (the default)": False, "one session": True, "the default again": False}
    ways = [measure(bundle, name, one_session=one, provider=provider) for name, one in asked.items()]
    watch.write(out, ways=ways)
    head = ("way", "load ms", "calls of 8 ms", "calls of 1 to 32 ms", "slowest ms", "images/s")
    print(table(head, [[way.name, *map(str, msgspec.structs.astuple(way)[1:])] for way in ways]))


if __name__ == "__main__":
    run(main)
