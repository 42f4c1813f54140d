"""Holds every artifact to eager PyTorch, from file bytes to vector, over all golden cases.

Artifacts are the ONNX files as the runtime serves them, and the compiled towers. Batches of 1, 3 and 17: sizes that are
not a special case of each other, in which short and full texts, and images of every size, meet. A difference beyond the
bound is an error, never a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign.dual_model import DualModel, TowerFunction
from mmalign_export.errors import ParityError
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.spec import ONNX, Modality, Parity

# What float32 keeps through some hundred layers when another library orders the sums differently; measured differences
# are near 1e-6, so the bounds leave room for other processors and none for a wrong pixel or a lost token.
COSINE_BOUND = 0.99999
ABS_BOUND = 1e-4
BATCH_SIZES = (1, 3, 17)

ImageFunction: TypeAlias = Callable[[Sequence[Path]], NDArray[np.float32]]
TextFunction: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
Case = TypeVar("Case")


class Artifact(msgspec.Struct, frozen=True):
    """Something that embeds: its engine, and the ways from image files and from texts to vectors, one batch a call."""

    engine: str
    embed_images: ImageFunction
    embed_texts: TextFunction


class CaseDifference(msgspec.Struct, frozen=True):
    """How far one case's vector was from the reference, in one batch."""

    case: str
    kind: Modality
    batch_size: int
    cosine: float
    max_abs: float

    def within(self, abs_bound: float = ABS_BOUND) -> bool:
        """Whether it is inside the bounds."""
        return self.cosine >= COSINE_BOUND and self.max_abs <= abs_bound


# What a tower's vectors may move by, given the case that moved most: asked for where `ABS_BOUND` is not kept.
AbsBound: TypeAlias = Callable[[Modality, str], float]


def _usual_bound(tower: Modality, case: str) -> float:
    return ABS_BOUND


def check_parity(
    artifact: Artifact, golden: Golden, folder: Path, abs_bound: AbsBound = _usual_bound
) -> dict[Modality, Parity]:
    """Compare an artifact with the golden vectors and return each tower's worst difference.

    Raises ParityError naming artifact, case, batch and figures when one is outside the bounds.
    """
    differences = measure_parity(artifact, golden, folder)
    if not differences:
        raise ParityError(f"{artifact.engine}: no golden case was compared, so nothing is proven.")
    by_kind: dict[Modality, list[CaseDifference]] = {}
    for difference in differences:
        by_kind.setdefault(difference.kind, []).append(difference)
    bounds = {kind: _bound(found, abs_bound) for kind, found in by_kind.items()}
    failed = [difference for difference in differences if not difference.within(bounds[difference.kind])]
    if failed:
        worst = min(failed, key=lambda difference: difference.cosine)
        raise ParityError(
            f"{artifact.engine} differs from eager PyTorch in {len(failed)} of {len(differences)} comparisons; the "
            f"worst is {worst.kind} case {worst.case!r} in a batch of {worst.batch_size}: cosine {worst.cosine:.7f} "
            f"(at least {COSINE_BOUND}), max abs {worst.max_abs:.2e} (at most {bounds[worst.kind]:g}). No bundle was "
            "written."
        )
    return {kind: _worst(found, bounds[kind]) for kind, found in by_kind.items()}


def _bound(differences: Sequence[CaseDifference], abs_bound: AbsBound) -> float:
    farthest = max(differences, key=lambda difference: difference.max_abs)
    return ABS_BOUND if farthest.max_abs <= ABS_BOUND else abs_bound(farthest.kind, farthest.case)


def _worst(differences: Sequence[CaseDifference], abs_bound: float) -> Parity:
    return Parity(
        num_cases=len({difference.case for difference in differences}),
        min_cosine=min(difference.cosine for difference in differences),
        max_abs_difference=max(difference.max_abs for difference in differences),
        cosine_bound=COSINE_BOUND,
        abs_bound=abs_bound,
    )


def measure_parity(artifact: Artifact, golden: Golden, folder: Path) -> list[CaseDifference]:
    """Return every case's difference in every batch size."""
    files = [(case.name, folder / case.file, case.embedding) for case in golden.images]
    texts = [(case.name, case.text, case.embedding) for case in golden.texts]
    differences = []
    for batch_size in BATCH_SIZES:
        for batch in _batches(files, batch_size):
            vectors = artifact.embed_images([path for _, path, _ in batch])
            expected = [(name, embedding) for name, _, embedding in batch]
            differences += _compare(vectors, expected, "image", batch_size)
        for text_batch in _batches(texts, batch_size):
            vectors = artifact.embed_texts([text for _, text, _ in text_batch])
            expected = [(name, embedding) for name, _, embedding in text_batch]
            differences += _compare(vectors, expected, "text", batch_size)
    return differences


def _batches(cases: Sequence[Case], batch_size: int) -> list[list[Case]]:
    num_batches = -(-len(cases) // batch_size)
    supply = cycle(cases)
    return [list(islice(supply, batch_size)) for _ in range(num_batches)]


def _compare(
    vectors: NDArray[np.float32], expected: Sequence[tuple[str, Sequence[float]]], kind: Modality, batch_size: int
) -> list[CaseDifference]:
    reference = np.array([embedding for _, embedding in expected], dtype=np.float64)  # (B, D)
    if vectors.shape != reference.shape or not np.isfinite(vectors).all():
        cases = ", ".join(name for name, _ in expected[:3])
        raise ParityError(
            f"{kind} cases {cases}...: seen vectors of shape {vectors.shape}, "
            f"finite: {bool(np.isfinite(vectors).all())}; expected {reference.shape}, all finite."
        )
    found = vectors.astype(np.float64)
    cosines = (found * reference).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
    max_abs = np.abs(found - reference).max(axis=1)
    return [
        CaseDifference(name, kind, batch_size, float(cosine), float(moved))
        for (name, _), cosine, moved in zip(expected, cosines, max_abs, strict=True)
    ]


def onnx_artifact(embedder: Embedder) -> Artifact:
    """Return a bundle as the runtime serves it, one batch a call; a batch that comes again is not run again.

    An import is held first to eager PyTorch and then to its library, by the same vectors of the same files.
    """

    @cache
    def images(paths: tuple[Path, ...]) -> NDArray[np.float32]:
        return embedder.encode_image(paths, batch_size=len(paths))

    @cache
    def texts(batch: tuple[str, ...]) -> NDArray[np.float32]:
        return embedder.encode_text(batch, batch_size=len(batch))

    return Artifact(ONNX, lambda paths: images(tuple(paths)), lambda batch: texts(tuple(batch)))


def torch_artifact(engine: str, model: DualModel, functions: Mapping[Modality, TowerFunction]) -> Artifact:
    """Return towers that torch runs, fed as the model's own: the same decoding, preprocessing graph and tokenizer."""

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        return functions["image"](*model.image.tensors(model.image.prepare(paths))).numpy()

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        return functions["text"](*model.text.tensors(model.text.prepare(texts))).numpy()

    return Artifact(engine, embed_images, embed_texts)
