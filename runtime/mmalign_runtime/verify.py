"""Prove a bundle on the machine at hand: run its golden cases and compare every stage with the PyTorch reference.

Each vector is made twice, its item alone and together with all the others, and the worse of the two counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.embedder import Embedder
from mmalign_runtime.encoders import ImageEncoder, TextEncoder
from mmalign_runtime.errors import BundleFormatError, ItemError
from mmalign_runtime.golden import (
    Golden,
    ImageCase,
    TextCase,
    load_golden,
    pixels_sha256,
    sample_pixel_values,
    sample_pixels,
)
from mmalign_runtime.image import Pixels, decode_image
from mmalign_runtime.info import RuntimeInfo
from mmalign_runtime.providers import Provider
from mmalign_runtime.spec import Modality, Parity, Precision

Stage = Literal["decode", "preprocess", "tokenize", "tower"]

# Half a level of 255 after division by the smallest usual std (0.22): what rounding inside the graph may leave.
_PIXEL_VALUES_BOUND = 0.5 / 255 / 0.22


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One golden case: its cosine and largest difference to the reference, and the first stage to differ, if any."""

    name: str
    kind: Modality
    passed: bool
    cosine: float
    max_abs_difference: float
    stage: Stage | None = None
    detail: str = ""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a verification: what ran, the bounds, every case."""

    runtime: RuntimeInfo
    bounds: Parity
    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every case is inside its bounds; a report without cases proves nothing and has not passed."""
        return bool(self.cases) and all(case.passed for case in self.cases)


class _Difference(msgspec.Struct, frozen=True):
    cosine: float
    max_abs: float

    def within(self, bounds: Parity) -> bool:
        return self.cosine >= bounds.cosine_bound and self.max_abs <= bounds.abs_bound


def verify_bundle(
    path: str | Path,
    *,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    num_threads: int | None = None,
) -> VerifyReport:
    """Run the golden cases of a bundle with the provider, precision and threads that will serve.

    Raises BundleError when the bundle cannot be used at all, ProviderError when the provider is not there.
    """
    embedder = Embedder.load(path, provider=provider, precision=precision, num_threads=num_threads)
    golden = load_golden(embedder.bundle)
    bounds = _bounds(embedder.bundle.spec.parity, precision)
    folder = embedder.bundle.path
    images = [verify_image(case, folder, embedder.image, bounds) for case in golden.images]
    texts = [verify_text(case, embedder.text, bounds) for case in golden.texts]
    together = _verify_together(golden, embedder, bounds)
    return VerifyReport(runtime=embedder.info(), bounds=bounds, cases=(*images, *texts, *together))


def verify_image(case: ImageCase, folder: Path, encoder: ImageEncoder, bounds: Parity) -> CaseResult:
    """Run one image case alone, stage by stage."""
    try:
        pixels = decode_image(folder / case.file, encoder.files.spec)
    except ItemError as error:
        return _failed(case.name, "image", "decode", error.reason)
    decode_note = _compare_decoded(case, pixels)
    pixel_values = encoder.preprocess(pixels)
    moved = float(np.abs(sample_pixel_values(pixel_values) - np.array(case.pixel_values_sample, np.float32)).max())
    difference = _difference(encoder.vectors([pixel_values]), [case.embedding])
    if difference.within(bounds):
        return _result(case.name, "image", difference, bounds, None, decode_note)
    if decode_note:
        return _result(case.name, "image", difference, bounds, "decode", decode_note)
    if moved > _PIXEL_VALUES_BOUND:
        return _result(case.name, "image", difference, bounds, "preprocess", f"pixel_values moved by up to {moved:.3g}")
    return _result(case.name, "image", difference, bounds, "tower", "pixel_values agree, the vector does not")


def verify_text(case: TextCase, encoder: TextEncoder, bounds: Parity) -> CaseResult:
    """Run one text case alone, stage by stage."""
    tokens = encoder.tokenizer.encode([case.text])
    found = tuple(int(i) for i in tokens.input_ids[0][tokens.attention_mask[0] == 1])
    difference = _difference(encoder.vectors([case.text]), [case.embedding])
    if found != case.input_ids:
        expected = f"expected {len(case.input_ids)} tokens {case.input_ids[:6]}..."
        detail = f"seen {len(found)} tokens {found[:6]}..., {expected}"
        result = _result(case.name, "text", difference, bounds, "tokenize", detail)
        return msgspec.structs.replace(result, passed=False, stage="tokenize")
    return _result(case.name, "text", difference, bounds, "tower", "the token ids agree, the vector does not")


def _verify_together(golden: Golden, embedder: Embedder, bounds: Parity) -> list[CaseResult]:
    results = []
    files = [embedder.bundle.path / case.file for case in golden.images]
    images = embedder.encode_image(files, on_error="skip")
    if not images.errors:  # a file that does not decode has failed on its own line already
        difference = _difference(images.vectors, [case.embedding for case in golden.images])
        results.append(_result("all images in one batch", "image", difference, bounds, "tower", "differs in a batch"))
    texts = embedder.encode_text([case.text for case in golden.texts])
    difference = _difference(texts, [case.embedding for case in golden.texts])
    results.append(_result("all texts in one batch", "text", difference, bounds, "tower", "differs in a batch"))
    return results


def _bounds(parity: Sequence[Parity], precision: Precision) -> Parity:
    artifact = f"onnx-{precision}"
    for entry in parity:
        if entry.artifact == artifact:
            return entry
    raise BundleFormatError(f"the bundle records no parity of {artifact}, so nothing can be held to it. Export again.")


def _difference(vectors: NDArray[np.float32], expected: Sequence[Sequence[float]]) -> _Difference:
    reference = np.array(expected, dtype=np.float64)
    if vectors.shape != reference.shape or not np.isfinite(vectors).all():
        return _Difference(-1.0, float("inf"))
    found = vectors.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (found * reference).sum(axis=1) / norms
    return _Difference(float(cosines.min()), float(np.abs(found - reference).max()))


def _compare_decoded(case: ImageCase, pixels: Pixels) -> str:
    height, width, _ = pixels.shape
    if (height, width) != (case.height, case.width):
        return f"decoded to {width} x {height}, expected {case.width} x {case.height}"
    if pixels_sha256(pixels) == case.pixels_sha256:
        return ""
    moved = np.abs(sample_pixels(pixels).astype(int) - np.array(case.pixels_sample)).max()
    return f"decoded pixels differ from the reference's (up to {moved} levels on the samples kept)"


def _result(
    name: str, kind: Modality, difference: _Difference, bounds: Parity, stage: Stage | None, detail: str
) -> CaseResult:
    passed = difference.within(bounds)
    return CaseResult(
        name=name,
        kind=kind,
        passed=passed,
        cosine=difference.cosine,
        max_abs_difference=difference.max_abs,
        stage=None if passed else stage,
        detail="" if passed and stage else detail,
    )


def _failed(name: str, kind: Modality, stage: Stage, detail: str) -> CaseResult:
    return CaseResult(
        name=name, kind=kind, passed=False, cosine=-1.0, max_abs_difference=float("inf"), stage=stage, detail=detail
    )
