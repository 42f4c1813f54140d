"""Each golden case, alone: decode, preprocess or tokenize, tower; and the first stage that is not the reference's."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.bundle.golden import (
    Golden,
    ImageCase,
    TextCase,
    load_golden,
    pixels_sha256,
    sample_pixel_values,
    sample_pixels,
)
from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import Pixels, decode_image
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import Modality, Parity
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.text_encoder import TextEncoder
from mmalign_runtime.verify.difference import Difference, difference
from mmalign_runtime.verify.report import CaseResult, Stage

# Half a level of 255 after division by the smallest usual std (0.22): what rounding inside the graph may leave.
_PIXEL_VALUES_BOUND = 0.5 / 255 / 0.22


class ImageOutcome(msgspec.Struct, frozen=True):
    """One image case that decoded: the verdict, its pixel_values (1, 3, S, S) and its vector (1, D)."""

    case: ImageCase
    result: CaseResult
    pixel_values: NDArray[np.float32]
    vector: Vectors


class TextOutcome(msgspec.Struct, frozen=True):
    """One text case: the verdict, and its vector (1, D)."""

    case: TextCase
    result: CaseResult
    vector: Vectors


Outcome = TypeVar("Outcome", ImageOutcome, TextOutcome)


class GoldenRun(msgspec.Struct, frozen=True):
    """All golden cases, each run alone, held to `bounds` by tower. `refused` are the images that did not decode."""

    images: tuple[ImageOutcome, ...]
    texts: tuple[TextOutcome, ...]
    refused: tuple[CaseResult, ...]
    bounds: dict[Modality, Parity]

    def results(self) -> tuple[CaseResult, ...]:
        """Return every case's verdict: images, then texts."""
        return (*(outcome.result for outcome in self.images), *self.refused, *(text.result for text in self.texts))


def run_golden(embedder: BaseEmbedder, bounds: dict[Modality, Parity]) -> GoldenRun:
    """Run every golden case of the towers that the embedder has, alone."""
    images: list[ImageOutcome] = []
    refused: list[CaseResult] = []
    if "image" in embedder.towers:
        golden, floor = _cases(embedder, "image", bounds["image"])
        for case in golden.images:
            try:
                outcome = run_image(case, embedder.bundle.source(case.file), embedder.image, bounds["image"])
                images.append(floor.hold(outcome) if floor else outcome)
            except ItemError as error:
                refused.append(_refused(case.name, error.reason))
    texts: list[TextOutcome] = []
    if "text" in embedder.towers:
        golden, floor = _cases(embedder, "text", bounds["text"])
        found = (run_text(case, embedder.text, bounds["text"]) for case in golden.texts)
        texts = [floor.hold(outcome) if floor else outcome for outcome in found]
    return GoldenRun(tuple(images), tuple(texts), tuple(refused), bounds)


def _cases(embedder: BaseEmbedder, tower: Modality, bounds: Parity) -> tuple[Golden, _Floor | None]:
    """Return the cases that a tower's artifact is compared with, and what holds it to PyTorch's where they differ."""
    bundle = embedder.bundle
    own = embedder.engine.artifact(bundle.spec, tower, embedder.precision).golden
    return load_golden(bundle, own), None if own is None else _Floor(load_golden(bundle), bounds)


class _Floor:
    """Holds vectors of fewer bits, compared with their own elsewhere, to PyTorch's: how far rounding took them."""

    def __init__(self, reference: Golden, bounds: Parity) -> None:
        self._images = {case.name: case.embedding for case in reference.images}
        self._texts = {case.name: case.embedding for case in reference.texts}
        self._least = bounds.least_cosine
        # Another machine may be as far from the one that quantized as the bounds allow.
        self._room = 1 - bounds.cosine_bound

    def hold(self, outcome: Outcome) -> Outcome:
        """Return the outcome, failed where it is farther from PyTorch's vector than was allowed."""
        result = outcome.result
        expected = (self._images if result.kind == "image" else self._texts)[result.name]
        found = difference(outcome.vector, [expected]).cosine
        if not result.passed or found >= self._least - self._room:
            return outcome
        detail = (
            f"cosine {found:.4f} to PyTorch's vector, expected at least {self._least:g}: rounding took it too far. "
            "Quantize again, calibrated on such items"
        )
        failed = msgspec.structs.replace(result, passed=False, stage="tower", detail=detail)
        return msgspec.structs.replace(outcome, result=failed)


def run_image(case: ImageCase, source: FileSource, encoder: ImageEncoder, bounds: Parity) -> ImageOutcome:
    """Run one image case alone. Raises ItemError when it does not decode."""
    pixels = decode_image(source, encoder.spec)
    decode_note = _compare_decoded(case, pixels)
    pixel_values = encoder.preprocess(pixels)
    moved = float(np.abs(sample_pixel_values(pixel_values) - np.array(case.pixel_values_sample, np.float32)).max())
    vector = encoder.vectors([pixel_values])  # (1, D)
    stage: Stage = "tower"
    detail = "pixel_values agree, the vector does not"
    if decode_note:
        stage, detail = "decode", decode_note
    elif moved > _PIXEL_VALUES_BOUND:
        stage, detail = "preprocess", f"pixel_values moved by up to {moved:.3g}"
    result = judge(case.name, "image", difference(vector, [case.embedding]), bounds, stage, detail)
    return ImageOutcome(case, _with_note(result, decode_note), pixel_values, vector)


def run_text(case: TextCase, encoder: TextEncoder, bounds: Parity) -> TextOutcome:
    """Run one text case alone."""
    tokens = encoder.tokenizer.encode([case.text])
    found = tuple(int(i) for i in tokens.input_ids[0][tokens.attention_mask[0] == 1])
    vector = encoder.tower(tokens)  # (1, D)
    moved = difference(vector, [case.embedding])
    result = judge(case.name, "text", moved, bounds, "tower", "the token ids agree, the vector does not")
    if found != case.input_ids:  # wrong even where the vector happens to be close
        expected = f"expected {len(case.input_ids)} tokens {case.input_ids[:6]}..."
        detail = f"seen {len(found)} tokens {found[:6]}..., {expected}"
        result = msgspec.structs.replace(result, passed=False, stage="tokenize", detail=detail)
    return TextOutcome(case, result, vector)


def judge(name: str, kind: Modality, found: Difference, bounds: Parity, stage: Stage, detail: str) -> CaseResult:
    """Hold a difference to the bounds; `stage` and `detail` say what it comes from when it is outside."""
    passed = found.within(bounds)
    return CaseResult(
        name=name,
        kind=kind,
        passed=passed,
        cosine=found.cosine,
        max_abs_difference=found.max_abs,
        stage=None if passed else stage,
        detail="" if passed else detail,
    )


def _with_note(result: CaseResult, decode_note: str) -> CaseResult:
    # Another JPEG decoder moves pixels by a level: where the vector stays within the bounds, that is only worth a note.
    return msgspec.structs.replace(result, detail=decode_note) if decode_note else result


def _compare_decoded(case: ImageCase, pixels: Pixels) -> str:
    height, width, _ = pixels.shape
    if (height, width) != (case.height, case.width):
        return f"decoded to {width} x {height}, expected {case.width} x {case.height}"
    if pixels_sha256(pixels) == case.pixels_sha256:
        return ""
    moved = np.abs(sample_pixels(pixels).astype(int) - np.array(case.pixels_sample)).max()
    return f"decoded pixels differ from the reference's (up to {moved} levels on the samples kept)"


def _refused(name: str, detail: str) -> CaseResult:
    return CaseResult(
        name=name,
        kind="image",
        passed=False,
        cosine=-1.0,
        max_abs_difference=float("inf"),
        stage="decode",
        detail=detail,
    )
