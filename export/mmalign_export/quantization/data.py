"""What a bundle is calibrated on and judged by: pairs that the user gives, or what this package carries."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.examples import Calibration, Questions, read_calibration, read_questions
from mmalign_export.quantization.packaged import PACKAGED, packaged_calibration, packaged_questions
from mmalign_export.quantization.weight_levels import largest_level
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.eight_bits import SEVEN_BITS

logger = logging.getLogger(__name__)

# One question of two hundred: what the command allows where pairs are given and no budget is.
_DEFAULT_POINTS = 0.5
_NUM_IMAGES, _NUM_TEXTS = 64, 512


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
