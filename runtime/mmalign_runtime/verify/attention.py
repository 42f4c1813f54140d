"""The second stage held to its golden cases: an image's tokens, what texts see in them, alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mmalign_runtime.attention import RegionAttention
from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.bundle.golden import AttentionCase, AttentionGolden, Golden, load_golden
from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import REGIONS, SCORES, Parity
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.verify.difference import Difference, difference
from mmalign_runtime.verify.golden_cases import ImageOutcome
from mmalign_runtime.verify.report import CaseResult, CheckResult, Stage


class AttentionRun(msgspec.Struct, frozen=True):
    """Every case's verdict, and whether texts and images together give what each gives alone."""

    cases: tuple[CaseResult, ...]
    checks: tuple[CheckResult, ...]


def run_attention(embedder: BaseEmbedder, images: Sequence[ImageOutcome], limit: float) -> AttentionRun:
    """Run the golden cases of the second stage on prepared images, alone and together.

    `limit` is what other items of a batch may move. Nothing is run for a bundle without a second stage, or by an
    engine that runs no ONNX graphs. Raises BundleFormatError where the bundle has one and no golden cases of it.
    """
    if embedder.bundle.spec.attention is None or not images or not embedder.engine.runs_onnx:
        return AttentionRun((), ())
    golden = load_golden(embedder.bundle)
    if golden.attention is None or not golden.attention.images:
        raise BundleFormatError("the bundle has an attention and no golden case of it. Export the bundle again.")
    bounds = {graph: _bounds(embedder, graph) for graph in (REGIONS, SCORES)}
    texts = golden_texts(golden, golden.attention)
    # The reference's vectors: an artifact of fewer bits has cases of its own, and these graphs are float32.
    vectors = {case.name: case.embedding for case in golden.images}
    prepared = {outcome.case.name: outcome.pixel_values for outcome in images}
    cases = [case for case in golden.attention.images if case.image in prepared]
    tokens = [embedder.attention.images.vectors([prepared[case.image]]) for case in cases]
    results = tuple(
        _judge(case, vectors[case.image], found, embedder.attention.attend(texts, found).scores_and_weights(), bounds)
        for case, found in zip(cases, tokens, strict=True)
    )
    together = [prepared[case.image] for case in cases]
    return AttentionRun(results, (_check_batch(embedder.attention, texts, tokens, together, limit),))


def golden_texts(golden: Golden, attention: AttentionGolden) -> Vectors:
    """Return the reference's vectors (T, D) of the texts that the second stage's cases have."""
    by_name = {case.name: case.embedding for case in golden.texts}
    return np.array([by_name[name] for name in attention.texts], np.float32)


def _judge(
    case: AttentionCase, vector: Sequence[float], tokens: Vectors, attended: Vectors, bounds: dict[str, Parity]
) -> CaseResult:
    """Hold an image's vector and one region's token, then what all texts see in the image, to the reference."""
    at_tokens = difference(tokens[0, [0, 1 + case.region]], [vector, case.token])
    at_scores = difference(attended[:, 0], case.attended)
    stage: Stage | None = None
    if not at_tokens.within(bounds[REGIONS]):
        stage = "regions"
    elif not at_scores.within(bounds[SCORES]):
        stage = "scores"
    worse = Difference(min(at_tokens.cosine, at_scores.cosine), max(at_tokens.max_abs, at_scores.max_abs))
    return CaseResult(
        name=case.image,
        kind="attention",
        passed=stage is None,
        cosine=worse.cosine,
        max_abs_difference=worse.max_abs,
        stage=stage,
        detail="" if stage is None else f"the graph of {stage} does not give what PyTorch gave",
    )


def _check_batch(
    attention: RegionAttention, texts: Vectors, alone: Sequence[Vectors], pixel_values: Sequence[Vectors], limit: float
) -> CheckResult:
    """Compare images and texts one by one with all of them at once."""
    tokens = attention.images.vectors(pixel_values)  # (I, 1 + N, D)
    seen = attention.attend(texts, tokens).scores_and_weights()  # (T, I, 1 + N)
    moved = max(float(np.abs(tokens - np.concatenate(alone)).max()), 0.0)
    for at, text in enumerate(texts):
        for image, own in enumerate(alone):
            found = attention.attend(text[None], own).scores_and_weights()
            moved = max(moved, float(np.abs(found[0, 0] - seen[at, image]).max()))
    detail = f"{len(alone)} images and {len(texts)} texts alone and together"
    return CheckResult(
        name="attention batch", passed=moved <= limit, max_abs_difference=moved, bound=limit, detail=detail
    )


def _bounds(embedder: BaseEmbedder, graph: str) -> Parity:
    artifact = embedder.engine.artifact(embedder.bundle.spec, graph, "fp32")
    if artifact.parity is None:
        raise BundleFormatError(f"the bundle records no parity of {artifact.kind} for {graph}. Export again.")
    return artifact.parity
