"""Where the time goes: each stage of embedding images and texts, measured batch by batch, one stage after the other.

Nothing overlaps here, so the sum of the stages is more than what `encode_image` takes; `bulk` measures that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from time import perf_counter
from typing import Literal, TypeAlias, cast

import msgspec

from mmalign_runtime.bench.laps import Laps, percentiles
from mmalign_runtime.bench.workload import Workload
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import Modality
from mmalign_runtime.text_encoder import TextEncoder

Stage = Literal["decode", "preprocess", "tokenize", "tower", "total"]
Seconds: TypeAlias = Mapping[Stage, float]


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


def time_stages(embedder: Embedder, work: Workload, batch_sizes: Sequence[int], laps: Laps) -> list[StageTiming]:
    """Measure decode and preprocess, or tokenize, then tower and their total, at each batch size."""
    supplies = {size: cycle(work.items) for size in batch_sizes}

    def lap(size: int) -> Seconds:
        items = list(islice(supplies[size], size))
        if work.kind == "image":
            return _time_images(embedder.image, items)
        return _time_texts(embedder.text, cast("list[str]", items))

    found = laps.take({size: partial(lap, size) for size in batch_sizes})
    return [
        _timing(work.kind, stage, size, [each[stage] for each in of_size])
        for size, of_size in found.items()
        for stage in of_size[0]
    ]


def _time_images(encoder: ImageEncoder, items: Sequence[ImageItem]) -> Seconds:
    decode_s = preprocess_s = 0.0
    prepared = []
    for index, item in enumerate(items):
        start = perf_counter()
        pixels = decode_image(item, encoder.spec, index=index)
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


def _timing(kind: Modality, stage: Stage, batch_size: int, seconds: Sequence[float]) -> StageTiming:
    found = percentiles(seconds)
    return StageTiming(
        kind=kind,
        stage=stage,
        batch_size=batch_size,
        num_batches=len(seconds),
        p50_ms=found.p50_ms,
        p90_ms=found.p90_ms,
        p99_ms=found.p99_ms,
        items_per_s=batch_size * len(seconds) / sum(seconds),
    )
