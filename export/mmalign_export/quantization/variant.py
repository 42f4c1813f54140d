"""Adds quantized towers to a bundle: their files, bounds for the golden cases, the report and its chart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from mmalign_export.bundle import CARD, hashes
from mmalign_export.errors import ExportError, QuantizationError
from mmalign_export.golden import cases_of, with_vectors
from mmalign_export.quantization.report import QuantizationReport, chart_name, report_name
from mmalign_export.quantization.rounding import largest_level
from mmalign_export.quantization.summary import with_section, write_chart
from mmalign_export.quantization.trial import cosines
from mmalign_export.staging import staged
from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.bundle.golden import Golden, load_golden
from mmalign_runtime.clipping import CLIPPING_NAME, Clipping
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.engines import installed_engines
from mmalign_runtime.engine.providers import ResolvedProvider
from mmalign_runtime.errors import BundleError, EngineError, ProviderError
from mmalign_runtime.spec import (
    ONNX,
    SPEC_NAME,
    Artifact,
    BundleSpec,
    Modality,
    Parity,
    Precision,
    Quantization,
    encode_spec,
)
from mmalign_runtime.streaming import Vectors

logger = logging.getLogger(__name__)

# How much further apart than the engines are here the vectors may be elsewhere: other processors order other sums, and
# a sum that falls on the other side of a rounding moves a vector by a thousandth. A processor that saturates, as
# eight-bit products do without VNNI, is further off by far.
_ROOM = 2.0
# By precision: of the cosine, and of a component. A GPU's float16 is rounded elsewhere than a CPU's.
_LEAST_ROOM: dict[Precision, tuple[float, float]] = {"int8": (2e-3, 2e-2), "fp16": (1e-3, 5e-3)}


def add_variant(
    bundle: Bundle,
    models: Mapping[Modality, bytes],
    report: QuantizationReport,
    out: Path,
    *,
    force: bool,
    clipping: Clipping | None = None,
) -> BundleSpec:
    """Write the bundle with the models at `out`, a folder or a .mmalign file, and return its spec.

    `clipping` is what counts an int8 tower's clipped values.

    Raises ExportError when `out` is there and `force` is not set, QuantizationError when no engine can prove it.
    """
    _check_unchanged(bundle, out)
    with staged(out, force=force) as folder:
        precision = report.precision
        for name in bundle.spec.files.keys() - _files_of_alone(bundle.spec, precision):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle.read(name))
        added = {tower: _artifact(bundle.spec, tower, report, clipping or {}) for tower in models}
        for tower, contents in models.items():
            (folder / added[tower].file).write_bytes(contents)
        (folder / report_name(precision)).write_bytes(
            msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        )
        if clipping:
            (folder / CLIPPING_NAME).write_bytes(msgspec.json.encode(clipping))
        write_chart(report, folder / chart_name(precision))
        card = (folder / CARD).read_text(encoding="utf-8")
        (folder / CARD).write_text(with_section(card, report), encoding="utf-8")
        others = tuple(each for each in bundle.spec.artifacts if not _is_replaced(each, precision))
        _write(bundle.spec, (*others, *added.values()), folder)
        golden_name = f"golden/cases_{precision}.json"
        golden, parity = _prove(folder, tuple(models), report)
        (folder / golden_name).write_bytes(msgspec.json.encode(golden))
        for tower, found in parity.items():
            logger.info("quantize: lowest cosine to PyTorch over the %s golden cases %.4f", tower, found.min_cosine)
        proven = (
            msgspec.structs.replace(each, parity=parity[tower], golden=golden_name) for tower, each in added.items()
        )
        written = _write(bundle.spec, (*others, *proven), folder)
        _check_unchanged(bundle, out)  # proving takes seconds, in which another process may have put its result there
        return written


def _check_unchanged(bundle: Bundle, out: Path) -> None:
    """Raise ExportError when the result is to replace its own source, which another process replaced meanwhile."""
    if out.exists() and out.samefile(bundle.path) and open_bundle(out).spec.seal != bundle.spec.seal:
        raise ExportError(
            f"{out} was changed by another process while this one measured. Quantize what is there now, or choose "
            "another --out."
        )


def _is_replaced(artifact: Artifact, precision: Precision) -> bool:
    return (artifact.engine, artifact.precision) == (ONNX, precision)


def _files_of_alone(spec: BundleSpec, precision: Precision) -> set[str]:
    """Return the files that belong to the artifacts which are replaced, and to no other."""
    replaced, others = set[str](), set[str]()
    for artifact in spec.artifacts:
        (replaced if _is_replaced(artifact, precision) else others).update(artifact.files().values())
    return replaced - others


def _artifact(spec: BundleSpec, tower: Modality, report: QuantizationReport, clipping: Clipping) -> Artifact:
    """Return what the bundle will say of a quantized tower, not proven yet."""
    path = PurePosixPath(spec.artifact(tower).file)
    chosen = report.chosen[tower]
    return Artifact(
        tower=tower,
        engine=ONNX,
        precision=report.precision,
        file=str(path.with_name(f"{path.stem}_{report.precision}{path.suffix}")),
        quantization=Quantization(
            report=report_name(report.precision),
            recipe=chosen.name(),
            mean_cosine=chosen.mean_cosine,
            lost_recall_at_1=chosen.lost_points.get(1),
            clipping=CLIPPING_NAME if tower in clipping else None,
            weight_level=largest_level() if report.precision == "int8" else None,
        ),
    )


def _write(spec: BundleSpec, artifacts: tuple[Artifact, ...], folder: Path) -> BundleSpec:
    wanted = msgspec.structs.replace(spec, artifacts=artifacts, files=hashes(folder))
    (folder / SPEC_NAME).write_bytes(encode_spec(wanted))
    return wanted


def _prove(
    folder: Path, towers: Sequence[Modality], report: QuantizationReport
) -> tuple[Golden, dict[Modality, Parity]]:
    """Run the golden cases with every engine that is here and has the provider.

    Return the cases with the first engine's vectors, and by tower how far all are from PyTorch's and bounds that hold
    the others.
    Raises QuantizationError when an engine is farther from PyTorch's than the report's floor and the bounds allow.
    """
    reference = load_golden(open_bundle(folder))
    options = _ProofOptions(towers, report.precision, report.provider)
    found = {name: each for name in installed_engines() if (each := _answers(folder, name, options, reference))}
    if not found:
        raise QuantizationError("no engine ran the quantized towers on the golden cases, so nothing is proven.")
    first = next(iter(found.values()))
    cases = cases_of(reference)
    parity = {
        tower: _parity(
            report,
            [each[tower] for each in found.values()],
            np.array([case.embedding for case in cases[tower]], np.float32),
        )
        for tower in towers
    }
    for tower, measured in parity.items():
        lowest, least = measured.min_cosine, measured.least_cosine
        if lowest < least - (1 - measured.cosine_bound):
            raise QuantizationError(
                f"with {' and '.join(found)} the lowest cosine over the {tower} golden cases is {lowest:.4f}, expected "
                f"at least {least:g}. Calibrate on more data, or allow less with --budget golden={lowest:.2f}."
            )
    return with_vectors(reference, first), parity


def _parity(report: QuantizationReport, found: Sequence[Vectors], expected: Vectors) -> Parity:
    """Return how far the engines' vectors are from PyTorch's, and bounds by how far they are from the first's."""
    apart = [_difference(vectors, found[0]) for vectors in found]
    moved = [_difference(vectors, expected) for vectors in found]
    cosine_room, abs_room = _LEAST_ROOM[report.precision]
    return Parity(
        num_cases=len(expected),
        min_cosine=min(cosine for cosine, _ in moved),
        max_abs_difference=max(largest for _, largest in moved),
        cosine_bound=1 - max(_ROOM * (1 - min(cosine for cosine, _ in apart)), cosine_room),
        abs_bound=max(_ROOM * max(largest for _, largest in apart), abs_room),
        least_cosine=report.least_golden_cosine,
    )


class _ProofOptions(msgspec.Struct, frozen=True):
    towers: Sequence[Modality]
    precision: Precision
    provider: ResolvedProvider


def _answers(folder: Path, engine: str, options: _ProofOptions, golden: Golden) -> dict[Modality, Vectors] | None:
    towers = options.towers
    try:
        embedder = Embedder.load(
            folder, engine=engine, precision=options.precision, towers=towers, provider=options.provider, verify=None
        )
        with embedder:
            sources = [embedder.bundle.source(case.file) for case in golden.images]
            texts = [case.text for case in golden.texts]
            return {
                tower: embedder.encode_image(sources) if tower == "image" else embedder.encode_text(texts)
                for tower in towers
            }
    except (BundleError, ProviderError, EngineError) as error:
        logger.info("quantize: not proven with %s: %s", engine, error)
        return None


def _difference(vectors: Vectors, expected: Vectors) -> tuple[float, float]:
    """Return the lowest cosine, and the largest difference of a component."""
    return float(cosines(vectors, expected).min()), float(np.abs(vectors - expected).max())
