"""The towers on a device in every precision: python -m benchmarks.gpu.towers BUNDLE OUT.json"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from typer import Argument, Option

from benchmarks.against.results import row_cosines
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.timing import median_ms, timed
from mmalign_runtime import Embedder
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import ImageTower, Modality, Precision, TextTower, Tower
from mmalign_runtime.text_encoder import TextEncoder

Device = Literal["cpu", "cuda"]

SECONDS = 1.0
_NUM_WARMUP, _MIN_CALLS = 3, 5
MODALITIES: tuple[Modality, ...] = ("image", "text")
BATCH_SIZES = (1, 8, 32)
# Batch and tokens: a query, captions, paragraphs.
TEXT_SHAPES = ((1, 8), (32, 16), (128, 16), (8, 128))


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tower, one shape: median ms of a run with both copies, and the least cosine to float32 on the CPU."""

    tower: Modality
    precision: Precision
    input_shape: tuple[int, ...]
    p50_ms: float
    min_cosine: float
    moved_in_batch: float


def measure(path: Path, provider: Device, seconds: float) -> Iterator[Timing]:
    """Measure every precision that a bundle has, but int8, which is for CPUs."""
    with Embedder.load(path, provider="cpu") as reference:
        for precision in (each for each in reference.bundle.spec.precisions() if each != "int8"):
            with Embedder.load(path, provider=provider, precision=precision) as embedder:
                towers = {"image": (embedder.image, reference.image), "text": (embedder.text, reference.text)}
                for tower in MODALITIES:
                    for feeds in tower_feeds(reference.bundle.spec.towers[tower]):
                        yield _time(tower, precision, *towers[tower], feeds, seconds)


def _time(
    tower: Modality,
    precision: Precision,
    encoder: ImageEncoder | TextEncoder,
    expected: ImageEncoder | TextEncoder,
    feeds: Feeds,
    seconds: float,
) -> Timing:
    vectors, alone = encoder.session.run(feeds), {name: values[:1] for name, values in feeds.items()}
    tower_run = partial(encoder.session.run, feeds)
    first_s = min(timed(tower_run) for _ in range(_NUM_WARMUP))
    laps_s = [timed(tower_run) for _ in range(max(_MIN_CALLS, round(seconds / first_s)))]
    return Timing(
        tower=tower,
        precision=precision,
        input_shape=next(iter(feeds.values())).shape,
        p50_ms=median_ms(laps_s),
        min_cosine=round(float(row_cosines(vectors, expected.session.run(feeds)).min()), 7),
        moved_in_batch=float(np.abs(encoder.session.run(alone)[0] - vectors[0]).max()),
    )


def tower_feeds(files: Tower) -> Iterator[Feeds]:
    """Yield what a tower is timed on: images by batch size, texts by batch size and tokens."""
    rng = np.random.default_rng(0)
    if isinstance(files, ImageTower):
        for size in BATCH_SIZES:
            yield {files.inputs.pixel_values: rng.standard_normal((size, 3, *files.spec.shape), np.float32)}
    elif isinstance(files, TextTower):
        for shape in TEXT_SHAPES:
            ids = rng.integers(1, 100, shape)  # any vocabulary has as many
            yield files.inputs.feeds(ids, np.ones_like(ids))


def main(
    bundle: Annotated[Path, Argument(help="a bundle's folder")],
    out: Annotated[Path, Argument(help="the JSON file that gets the results")],
    provider: Annotated[Device, Option(help="cpu tries the script itself")] = "cuda",
    seconds: Annotated[float, Option(help="seconds for each figure")] = SECONDS,
) -> None:
    watch = Watch()
    timings = list(measure(bundle, provider, seconds))
    watch.write(out, timings=timings)
    head = ("tower", "precision", "input", "p50 ms", "items/s", "cosine to float32", "moves by, alone")
    print(table(head, [_cells(timing) for timing in timings]))


def _cells(timing: Timing) -> list[str]:
    shape, speed = "x".join(map(str, timing.input_shape)), timing.input_shape[0] / timing.p50_ms * 1000
    figures = [f"{timing.p50_ms:.2f}", f"{speed:.0f}", f"{timing.min_cosine:.6f}", f"{timing.moved_in_batch:.1e}"]
    return [timing.tower, timing.precision, shape, *figures]


if __name__ == "__main__":
    run(main)
