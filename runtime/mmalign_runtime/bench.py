"""Where the time goes on this machine: each stage of embedding images and texts, measured batch by batch.

The batch sizes take turns, so that a machine that slows down or warms up does so for all of them alike.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias, TypeVar

import msgspec
import numpy as np

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.encoders import ImageEncoder, TextEncoder
from mmalign_runtime.engine.providers import import_onnxruntime
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.info import RuntimeInfo
from mmalign_runtime.spec import Modality

Stage = Literal["decode", "preprocess", "tokenize", "tower", "total"]
Seconds: TypeAlias = Mapping[Stage, float]
Item = TypeVar("Item")

DEFAULT_BATCH_SIZES = (1, 8, 32)
DEFAULT_NUM_ROUNDS = 20

# The first runs of a shape plan memory and fill caches: two of each batch size are thrown away.
_NUM_WARMUP = 2
_CPU_INFO = Path("/proc/cpuinfo")


class StageTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One stage at one batch size: percentiles of the milliseconds that a whole batch took, and items a second."""

    kind: Modality
    stage: Stage
    batch_size: int
    num_batches: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    items_per_s: float


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The card a measurement carries: what ran, on what, and when (ISO 8601, UTC)."""

    date: str
    cpu: str
    platform: str
    python: str
    mmalign_runtime: str
    onnxruntime: str
    runtime: RuntimeInfo


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement: its environment, how many different items it went through, and every stage's timing."""

    environment: Environment
    num_images: int
    num_texts: int
    timings: tuple[StageTiming, ...]


def run_bench(
    embedder: Embedder,
    images: Sequence[ImageItem],
    texts: Sequence[str],
    *,
    batch_sizes: Sequence[int] = DEFAULT_BATCH_SIZES,
    num_rounds: int = DEFAULT_NUM_ROUNDS,
) -> BenchReport:
    """Measure both sides of an embedder that has both towers loaded, `num_rounds` batches for each batch size.

    Items are taken in turn and from the start again. Raises InputError when there is none, or a number is below 1, and
    ItemError for the first item that cannot be embedded.
    """
    if not images or not texts:
        raise InputError(f"seen {len(images)} images and {len(texts)} texts, expected at least one of each to measure.")
    if min(num_rounds, *batch_sizes) < 1:
        raise InputError(f"seen {num_rounds} rounds of batches of {list(batch_sizes)}, expected at least 1 everywhere.")
    image_laps = _take_turns(partial(_time_images, embedder.image), images, batch_sizes, num_rounds)
    text_laps = _take_turns(partial(_time_texts, embedder.text), texts, batch_sizes, num_rounds)
    return BenchReport(
        environment=environment_card(embedder),
        num_images=len(images),
        num_texts=len(texts),
        timings=(*_timings("image", image_laps), *_timings("text", text_laps)),
    )


def golden_images(bundle: Bundle) -> list[FileSource]:
    """Return the images that travel with a bundle: real ones, at hand on every machine."""
    return [bundle.source(case.file) for case in load_golden(bundle).images]


def golden_texts(bundle: Bundle) -> list[str]:
    """Return the texts that travel with a bundle."""
    return [case.text for case in load_golden(bundle).texts]


def environment_card(embedder: Embedder) -> Environment:
    """Describe this machine and what the embedder chose on it."""
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=cpu_model(),
        platform=platform.platform(),
        python=platform.python_version(),
        mmalign_runtime=version("mmalign-runtime"),
        onnxruntime=str(import_onnxruntime().__version__),
        runtime=embedder.info(),
    )


def cpu_model(cpu_info: Path = _CPU_INFO) -> str:
    """Return the processor's name as Linux gives it, elsewhere as the platform module does."""
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _take_turns(
    measure: Callable[[Sequence[Item]], Seconds], items: Sequence[Item], batch_sizes: Sequence[int], num_rounds: int
) -> dict[int, list[Seconds]]:
    supplies = {size: cycle(items) for size in batch_sizes}
    laps: dict[int, list[Seconds]] = {size: [] for size in batch_sizes}
    for _ in range(_NUM_WARMUP + num_rounds):
        for size, supply in supplies.items():
            laps[size].append(measure(list(islice(supply, size))))
    return {size: of_size[_NUM_WARMUP:] for size, of_size in laps.items()}


def _time_images(encoder: ImageEncoder, items: Sequence[ImageItem]) -> Seconds:
    decode_s = preprocess_s = 0.0
    prepared = []
    for index, item in enumerate(items):
        start = perf_counter()
        pixels = decode_image(item, encoder.files.spec, index=index)
        decoded = perf_counter()
        prepared.append(encoder.preprocess(pixels))
        decode_s += decoded - start
        preprocess_s += perf_counter() - decoded
    start = perf_counter()
    encoder.vectors(prepared)
    tower_s = perf_counter() - start
    total_s = decode_s + preprocess_s + tower_s
    return {"decode": decode_s, "preprocess": preprocess_s, "tower": tower_s, "total": total_s}


def _time_texts(encoder: TextEncoder, texts: Sequence[str]) -> Seconds:
    start = perf_counter()
    tokens = encoder.tokenizer.encode(texts)
    tokenized = perf_counter()
    encoder.tower(tokens)
    end = perf_counter()
    return {"tokenize": tokenized - start, "tower": end - tokenized, "total": end - start}


def _timings(kind: Modality, laps: Mapping[int, Sequence[Seconds]]) -> list[StageTiming]:
    return [
        _timing(kind, stage, size, [lap[stage] for lap in of_size])
        for size, of_size in laps.items()
        for stage in of_size[0]
    ]


def _timing(kind: Modality, stage: Stage, batch_size: int, seconds: Sequence[float]) -> StageTiming:
    p50, p90, p99 = np.percentile(np.array(seconds) * 1000, (50, 90, 99))
    return StageTiming(
        kind=kind,
        stage=stage,
        batch_size=batch_size,
        num_batches=len(seconds),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        items_per_s=batch_size * len(seconds) / sum(seconds),
    )
