"""Images and texts that this package carries, for bundles that come without pairs: one photograph, texts in many
scripts.

What a tower is judged by is apart from what it is calibrated on: other texts, and the photograph in other shapes than
the golden images have. That is still one photograph: it shows that a tower keeps photographs, and no recall.
"""

from __future__ import annotations

from mmalign_export.quantization.examples import Calibration, Questions, golden_calibration, prepared_images, tokens_of
from mmalign_export.sources.proof_pictures import proof_pictures
from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_runtime.embedder import Embedder

PACKAGED = "the golden cases, and the photograph and texts of mmalign-export"


def packaged_calibration(embedder: Embedder) -> Calibration:
    """Return the golden texts and photographs, and every other text of the package."""
    return golden_calibration(embedder, [], PROOF_TEXTS[::2])


def packaged_questions(embedder: Embedder) -> Questions:
    """Return the photograph in sixteen shapes, and the texts that are not for calibration. Nothing belongs together."""
    texts = PROOF_TEXTS[1::2]
    images = prepared_images([picture.data for picture in proof_pictures()], embedder)
    return Questions(images, texts, tokens_of(texts, embedder), None)
