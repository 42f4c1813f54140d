"""The real images and texts that a quantized tower is calibrated and judged on, prepared as the runtime prepares them.

Letters: N images, M captions, S image side.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign.config import load_config
from mmalign.data import DataSource, Pair, merge_pairs, read_pairs
from mmalign.pairs import load_sources
from mmalign.pool import build_pool
from mmalign.retrieval import Relevance
from mmalign_export.errors import QuantizationError
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.tokenizer import TokenBatch

PixelValues = NDArray[np.float32]

_TEXT_BATCH = 32
_SEED = 0


class Calibration(msgspec.Struct, frozen=True):
    """Prepared images, (1, 3, S, S) each, and token batches."""

    images: tuple[PixelValues, ...]
    tokens: tuple[TokenBatch, ...]


class Questions(msgspec.Struct, frozen=True):
    """What recall is measured on: N prepared images, M captions in batches, and which belong together."""

    images: tuple[PixelValues, ...]
    texts: tuple[str, ...]
    tokens: tuple[TokenBatch, ...]
    relevant: Relevance


def read_calibration(data: str, embedder: Embedder, num_images: int, num_texts: int) -> Calibration:
    """Take a seeded sample of the data's pairs: of a training configuration, those of the train split.

    The golden texts join them. The golden images do not: they are made to be extreme, and ranges that hold a picture of
    one pixel leave few levels for the others.
    """
    pairs = _pairs(data, "train")
    captions = [caption for pair in _sampled(pairs, num_texts) for caption in pair.captions[:2]][:num_texts]
    texts = [case.text for case in load_golden(embedder.bundle).texts]
    images = [pair.image for pair in _sampled(pairs, num_images)]
    return Calibration(prepared_images(images, embedder), _tokens([*texts, *captions], embedder))


def read_questions(data: str, embedder: Embedder, max_images: int) -> Questions:
    """Take the data's pairs, at most `max_images`, and their first captions: of a configuration, the test split."""
    pool = build_pool(_sampled(_pairs(data, "test"), max_images), "first")
    images = prepared_images([pair.image for pair in pool.pairs], embedder)
    return Questions(images, pool.texts, _tokens(pool.texts, embedder), pool.relevant)


def _pairs(data: str, split: str) -> Sequence[Pair]:
    if Path(data).suffix != ".toml":
        return merge_pairs(read_pairs(DataSource(data)).pairs)
    config = load_config(Path(data))
    sources = load_sources(config.data, config.image)
    if split == "train":
        return [pair for source in sources if not source.is_held_out for pair in source.splits.train]
    return [pair for source in sources for pair in source.splits.test]


def _sampled(pairs: Sequence[Pair], count: int) -> list[Pair]:
    if not pairs:
        raise QuantizationError("the data holds no pairs to measure with. Give a file or folder of pairs.")
    return random.Random(_SEED).sample(list(pairs), min(count, len(pairs)))


def prepared_images(items: Sequence[Path | bytes], embedder: Embedder) -> tuple[PixelValues, ...]:
    """Return each image as the runtime prepares it, (1, 3, S, S). Raises ItemError."""
    encoder, found = embedder.image, []
    for index, item in enumerate(items):
        found.append(encoder.empty(1))
        encoder.prepare(encoder.hold(item, index), index, found[-1][0])
    return tuple(found)


def _tokens(texts: Sequence[str], embedder: Embedder) -> tuple[TokenBatch, ...]:
    starts = range(0, len(texts), _TEXT_BATCH)
    return tuple(embedder.text.tokenizer.encode(texts[start : start + _TEXT_BATCH]) for start in starts)
