"""One verification, from the first golden case to the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Unpack

import msgspec

from mmalign_runtime.base_embedder import BaseEmbedder, open_embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.config import BFLOAT16, ComputePrecision, RuntimeConfig, RuntimeFields
from mmalign_runtime.errors import BundleFormatError, VerificationError
from mmalign_runtime.spec import Modality, Parity
from mmalign_runtime.verify.against import compare
from mmalign_runtime.verify.attention import run_attention
from mmalign_runtime.verify.float32 import check_float32, check_placement
from mmalign_runtime.verify.golden_cases import GoldenRun, run_golden
from mmalign_runtime.verify.invariance import bound, check_concurrency, check_image_batch, check_text_batch
from mmalign_runtime.verify.pixels import can_check_pixels, check_pixels
from mmalign_runtime.verify.report import CaseResult, CheckResult, VerifyReport

# Lowest cosine and largest difference of golden cases computed in bfloat16 (OpenVINO 2026.4, AMX): ResNet-50 0.99998
# and 0.0014, BERT-base 0.99990 and 0.0029, MiniLM 0.99990 and 0.0027, EfficientNet-Lite0 0.9916 and 0.024, and 0.982 as
# the lowest of 1,255 drawings, whose recall stayed.
_BF16_COSINE = 0.97
_BF16_ABS = 0.06


def verify_bundle(
    path: str | Path,
    config: RuntimeConfig | None = None,
    *,
    profile: str | Path | None = None,
    towers: Sequence[Modality] = ("image", "text"),
    against: str | Path | None = None,
    **fields: Unpack[RuntimeFields],
) -> VerifyReport:
    """Verify a bundle with the config and the towers that will serve, given as `Embedder.load` takes them.

    `against` is another bundle, which embeds the same items. Every file is hashed, whatever is remembered of it. Raises
    BundleError when a bundle cannot be used at all, ProviderError when the engine or provider is not there,
    ProfileError when the profile does not fit.
    """
    started = perf_counter()

    def load(bundle: str | Path) -> BaseEmbedder:
        open_bundle(bundle, use_memory=False)
        return open_embedder(BaseEmbedder, bundle, config, profile=profile, towers=towers, check_hashes=False, **fields)

    with load(path) as embedder:
        if against is None:
            report = verify_embedder(embedder)
        else:
            with load(against) as other:
                report = verify_embedder(embedder, against=other)
    return msgspec.structs.replace(report, seconds=perf_counter() - started)


def verify_embedder(embedder: BaseEmbedder, *, against: BaseEmbedder | None = None) -> VerifyReport:
    """Verify the towers that an embedder has, as it stands; of an embedder of prefixes, the whole vectors."""
    embedder = embedder.whole()
    recorded = {tower: _recorded(embedder, tower) for tower in embedder.towers}
    golden = run_golden(embedder, {tower: _computed(each, embedder.precision) for tower, each in recorded.items()})
    limits = {tower: bound(embedder, each) for tower, each in recorded.items()}
    attention = run_attention(embedder, golden.images, max(limits.values()))
    return VerifyReport(
        runtime=embedder.info(),
        bounds=golden.bounds,
        cases=(*golden.results(), *attention.cases),
        checks=(*_checks(embedder, golden, limits), *attention.checks),
        against=None if against is None else compare(against.whole(), embedder.bundle, golden),
    )


def require_golden(embedder: BaseEmbedder) -> None:
    """Raise VerificationError, naming the first thing that differs, unless everything agrees."""
    report = verify_embedder(embedder)
    results: list[CaseResult | CheckResult] = [*report.cases, *report.checks]
    failed = [result for result in results if not result.passed]
    if failed:
        raise VerificationError(
            f"{embedder.bundle.path}: {len(failed)} of {len(results)} checks differ on this machine, the first is "
            f"{failed[0].name!r}: {failed[0].detail}. Run `mmalign verify {embedder.bundle.path}` for all of them."
        )


def _checks(embedder: BaseEmbedder, golden: GoldenRun, limits: dict[Modality, float]) -> tuple[CheckResult, ...]:
    checks = []
    if golden.texts:
        checks.append(check_text_batch(embedder, golden.texts, limits["text"]))
    if golden.images:  # where none decodes, every case has failed on its own line already
        checks.append(check_image_batch(embedder, golden.images, limits["image"]))
        if can_check_pixels(embedder):
            checks.append(check_pixels(embedder, golden.images))
    checks.append(check_concurrency(embedder, golden.images, golden.texts, max(limits.values())))
    info = embedder.info()
    if any(tower.nodes for tower in info.towers):  # some engines compile a tower to one piece
        checks.append(check_placement(info))
    if embedder.precision == "fp32" and not embedder.options.allow_tf32 and embedder.engine.runs_onnx:
        checks.append(check_float32(embedder.options))
    return tuple(checks)


def _computed(recorded: Parity, precision: ComputePrecision) -> Parity:
    """Return the bounds of a file computed in another precision than it is written in."""
    if precision != BFLOAT16:
        return recorded
    return msgspec.structs.replace(recorded, cosine_bound=_BF16_COSINE, abs_bound=_BF16_ABS)


def _recorded(embedder: BaseEmbedder, tower: Modality) -> Parity:
    artifact = embedder.engine.artifact(embedder.bundle.spec, tower, embedder.precision)
    if artifact.parity is None:
        raise BundleFormatError(
            f"the bundle records no parity of {artifact.kind} for the {tower} tower, so nothing can be held to it. "
            "Export again."
        )
    return artifact.parity
