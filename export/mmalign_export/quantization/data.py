"""The real images and texts that a quantized tower is calibrated and judged on, prepared as the runtime prepares them.

They are of pairs that the user gives, or what this package carries: one photograph, and texts in many scripts. What a
tower is judged by is apart from what it is calibrated on: other texts, and the photograph in other shapes than the
golden images have. That is still one photograph: it shows that a tower keeps photographs, and no recall.
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
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.rounding import largest_level
from mmalign_export.sources.proof_pixels import proof_pictures
from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.eight_bits import SEVEN_BITS
from mmalign_runtime.tokenizer import TokenBatch

logger = logging.getLogger(__name__)

PixelValues = NDArray[np.float32]

PACKAGED = "the golden cases, and the photograph and texts of mmalign-export"
# One question of two hundred: what the command allows where pairs are given and no budget is.
_DEFAULT_POINTS = 0.5
_NUM_IMAGES, _NUM_TEXTS = 64, 512
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


class Data(msgspec.Struct, frozen=True):
    """Questions to judge by, examples to calibrate on (None where nothing is calibrated), and what each is called."""

    questions: Questions
    examples: Calibration | None
    evaluation: str
    calibration: str


def default_budget(*, has_pairs: bool) -> Budget:
    """Return what may be lost where nobody says: half a point of recall@1, and without pairs cosine alone."""
    return Budget({1: _DEFAULT_POINTS} if has_pairs else {})


def read_data(
    embedder: Embedder,
    calibration: str | None,
    evaluation: str | None,
    budget: Budget,
    max_images: int,
    *,
    is_calibrated: bool,
) -> Data:
    """Read the pairs that are given; an imported bundle may do without, on the photograph and texts of this package.

    Raises QuantizationError where a trained bundle gets no pairs, or the budget asks for recall that nothing measures,
    DataError for pairs that cannot be read.
    """
    is_import = embedder.bundle.spec.provenance.imported is not None
    if evaluation is None:
        _check_without_pairs(budget, is_import=is_import)
        questions = packaged_questions(embedder)
        logger.warning("quantize: no --eval: judged by cosine alone, on %s; recall is not measured", PACKAGED)
    else:
        questions = read_questions(evaluation, embedder, max_images)
    logger.info("quantize: %d images and %d captions to judge by", len(questions.images), len(questions.texts))
    if is_calibrated and largest_level() == SEVEN_BITS:
        logger.info("quantize: weights of seven bits, since this processor cuts off sums of eight-bit products")
    judged_by = PACKAGED if evaluation is None else Path(evaluation).name
    if not is_calibrated:
        return Data(questions, None, judged_by, "")
    if calibration is not None:
        examples = read_calibration(calibration, embedder, _NUM_IMAGES, _NUM_TEXTS, questions)
        return Data(questions, examples, judged_by, Path(calibration).name)
    if not is_import:
        raise QuantizationError("ranges of eight bits are taken from pairs. Give them with --calibration.")
    logger.warning("quantize: no --calibration: ranges are taken from %s. Give what will be served", PACKAGED)
    return Data(questions, packaged_calibration(embedder), judged_by, PACKAGED)


def _check_without_pairs(budget: Budget, *, is_import: bool) -> None:
    if not is_import:
        raise QuantizationError(
            "a bundle that was trained is judged by its recall on pairs. Give them with --eval; only an imported "
            "bundle may do without."
        )
    if budget.points:
        raise QuantizationError(
            f"the budget {budget} asks for recall, which needs pairs. Give them with --eval, or a budget of cosines: "
            "--budget cosine=0.999."
        )


def packaged_calibration(embedder: Embedder) -> Calibration:
    """Return the golden texts and photographs, and every other text of the package."""
    return _golden_calibration(embedder, [], PROOF_TEXTS[::2])


def packaged_questions(embedder: Embedder) -> Questions:
    """Return the photograph in sixteen shapes, and the texts that are not for calibration. Nothing belongs together."""
    texts = PROOF_TEXTS[1::2]
    images = prepared_images([picture.data for picture in proof_pictures()], embedder)
    return Questions(images, texts, _tokens_of(texts, embedder), None)


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
    return _golden_calibration(embedder, [pair.image for pair in _sampled(pairs, num_images)], captions)


def _golden_calibration(embedder: Embedder, images: Sequence[Path | bytes], texts: Sequence[str]) -> Calibration:
    """Return images and texts, the bundle's golden texts before them and its golden photographs behind them."""
    golden = load_golden(embedder.bundle)
    photographs = [case for case in golden.images if min(case.height, case.width) >= _PHOTOGRAPH_SIDE]
    files = [*images, *(embedder.bundle.source(case.file) for case in photographs)]
    return Calibration(
        prepared_images(files, embedder), _tokens_of([*(case.text for case in golden.texts), *texts], embedder)
    )


def read_questions(data: str, embedder: Embedder, max_images: int) -> Questions:
    """Take the data's pairs, at most `max_images`, and their first captions: of a configuration, the test split."""
    items = build_retrieval_set(_sampled(_pairs(data, "test"), max_images), "first")
    images = prepared_images([pair.image for pair in items.pairs], embedder)
    asked = frozenset(image_identity(pair) for pair in items.pairs)
    return Questions(images, items.texts, _tokens_of(items.texts, embedder), items.relevant, asked)


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
    sources = load_sources(config.data, config.image, config.text)
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


def _tokens_of(texts: Sequence[str], embedder: Embedder) -> tuple[TokenBatch, ...]:
    """Return texts in batches of token ids."""
    starts = range(0, len(texts), _TEXT_BATCH)
    return tuple(embedder.text.tokenizer.encode(texts[start : start + _TEXT_BATCH]) for start in starts)
