"""The real images and texts that a quantized tower is calibrated and judged on, prepared as the runtime prepares them.

Letters: N images, M captions, S image side.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign.config import load_config
from mmalign.data import DataSource, Pair, merge_pairs, read_pairs
from mmalign.data.identity import image_identity
from mmalign.figures.retrieval import Relevance
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.run.pairs import load_sources
from mmalign_export.errors import QuantizationError
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.tokenizer import TokenBatch

logger = logging.getLogger(__name__)

PixelValues = NDArray[np.float32]

_TEXT_BATCH = 32
_SEED = 0
# The least side of a golden image that ranges are taken from.
_PHOTOGRAPH_SIDE = 64


class Calibration(msgspec.Struct, frozen=True):
    """Prepared images, (1, 3, S, S) each, and token batches."""

    images: tuple[PixelValues, ...]
    tokens: tuple[TokenBatch, ...]


class Questions(msgspec.Struct, frozen=True):
    """What recall is measured on: N prepared images, M captions in batches, and which belong together.

    `relevant` is None where nothing belongs together, so that recall means nothing. `image_ids` are the identities of
    the images.
    """

    images: tuple[PixelValues, ...]
    texts: tuple[str, ...]
    tokens: tuple[TokenBatch, ...]
    relevant: Relevance | None
    image_ids: frozenset[str] = frozenset()


def read_calibration(
    data: str, embedder: Embedder, num_images: int, num_texts: int, questions: Questions
) -> Calibration:
    """Take a seeded sample of the data's pairs: of a training configuration, those of the train split.

    Pairs whose image is among the questions are left out: what a tower is judged by must be new to it. Raises
    QuantizationError when no other is there.

    The golden texts join them, and the golden images that are large enough to be photographs: a picture of one pixel is
    made to be extreme, and ranges that hold it leave few levels for the others.
    """
    pairs = _unasked(_pairs(data, "train"), questions)
    captions = [caption for pair in _sampled(pairs, num_texts) for caption in pair.captions[:2]][:num_texts]
    return golden_calibration(embedder, [pair.image for pair in _sampled(pairs, num_images)], captions)


def golden_calibration(embedder: Embedder, images: Sequence[Path | bytes], texts: Sequence[str]) -> Calibration:
    """Return images and texts, the bundle's golden texts before them and its golden photographs behind them."""
    golden = load_golden(embedder.bundle)
    photographs = [case for case in golden.images if min(case.height, case.width) >= _PHOTOGRAPH_SIDE]
    files = [*images, *(embedder.bundle.source(case.file) for case in photographs)]
    return Calibration(
        prepared_images(files, embedder), tokens_of([*(case.text for case in golden.texts), *texts], embedder)
    )


def read_questions(data: str, embedder: Embedder, max_images: int) -> Questions:
    """Take the data's pairs, at most `max_images`, and their first captions: of a configuration, the test split."""
    items = build_retrieval_set(_sampled(_pairs(data, "test"), max_images), "first")
    images = prepared_images([pair.image for pair in items.pairs], embedder)
    asked = frozenset(image_identity(pair) for pair in items.pairs)
    return Questions(images, items.texts, tokens_of(items.texts, embedder), items.relevant, asked)


def _unasked(pairs: Sequence[Pair], questions: Questions) -> list[Pair]:
    left = [pair for pair in pairs if image_identity(pair) not in questions.image_ids]
    if pairs and not left:
        raise QuantizationError(
            f"all {len(pairs)} pairs of --calibration have images of --eval, so the result would be judged by what it "
            "was made from. Give other pairs to one of them."
        )
    if len(left) < len(pairs):
        num_shared = len(pairs) - len(left)
        logger.warning(
            "quantize: %d of %d pairs of --calibration have images of --eval too: left out", num_shared, len(pairs)
        )
    return left


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
        encoder.prepare(encoder.detach(item, index), index, found[-1][0])
    return tuple(found)


def tokens_of(texts: Sequence[str], embedder: Embedder) -> tuple[TokenBatch, ...]:
    """Return texts in batches of token ids."""
    starts = range(0, len(texts), _TEXT_BATCH)
    return tuple(embedder.text.tokenizer.encode(texts[start : start + _TEXT_BATCH]) for start in starts)
