"""Adds quantized towers to a bundle: their files, bounds for the golden cases, the report and its chart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_export.bundle import CARD, hashes
from mmalign_export.errors import QuantizationError
from mmalign_export.quantize.chart import CHART, write_chart
from mmalign_export.quantize.report import REPORT, QuantizationReport
from mmalign_export.quantize.section import with_section
from mmalign_export.quantize.trial import cosines
from mmalign_export.staging import staged
from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.bundle.golden import Golden, ImageCase, TextCase, load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.engines import installed_engines
from mmalign_runtime.errors import BundleError, EngineError, ProviderError
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, Modality, Parity, encode_spec
from mmalign_runtime.streaming import Vectors

logger = logging.getLogger(__name__)

PRECISION: Literal["int8"] = "int8"
GOLDEN = f"golden/cases_{PRECISION}.json"

Case = TypeVar("Case", ImageCase, TextCase)

# How much further apart than the engines are here the vectors may be elsewhere: other processors order other sums, and
# a sum that falls on the other side of a rounding moves a vector by a thousandth. A processor that saturates, as
# eight-bit products do without VNNI, is further off by far.
_ROOM = 2.0
_LEAST_COSINE_ROOM, _LEAST_ABS = 2e-3, 2e-2


def add_variant(
    bundle: Bundle, models: Mapping[Modality, bytes], report: QuantizationReport, out: Path, *, force: bool
) -> BundleSpec:
    """Write the bundle with the models at `out`, a folder or a .mmalign file, and return its spec.

    Raises ExportError when `out` is there and `force` is not set, QuantizationError when no engine can prove it.
    """
    with staged(out, force=force) as folder:
        replaced = {files.models.get(PRECISION) for files in (bundle.spec.image, bundle.spec.text)}
        replaced.add(bundle.spec.goldens.get(PRECISION))
        for name in bundle.spec.files.keys() - replaced:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle.read(name))
        spec = _with_models(bundle.spec, models)
        for tower, contents in models.items():
            (folder / _model(spec, tower)).write_bytes(contents)
        (folder / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        write_chart(report, folder / CHART)
        card = (folder / CARD).read_text(encoding="utf-8")
        (folder / CARD).write_text(with_section(card, report), encoding="utf-8")
        _write(spec, folder)
        golden, parity = _prove(folder, tuple(models))
        (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
        logger.info("quantize: lowest cosine to PyTorch over the golden cases %.4f", parity.min_cosine)
        others = tuple(entry for entry in spec.parity if entry.artifact != parity.artifact)
        proven = msgspec.structs.replace(spec, parity=(*others, parity), goldens={PRECISION: GOLDEN})
        return _write(proven, folder)


def _with_models(spec: BundleSpec, models: Mapping[Modality, bytes]) -> BundleSpec:
    changed = {}
    for tower in ("image", "text"):
        files = spec.image if tower == "image" else spec.text
        others = dict(files.models)
        others.pop(PRECISION, None)
        if tower in models:
            path = PurePosixPath(files.models["fp32"])
            others[PRECISION] = str(path.with_name(f"{path.stem}_{PRECISION}{path.suffix}"))
        changed[tower] = msgspec.structs.replace(files, models=others)
    return msgspec.structs.replace(spec, **changed, quantization=REPORT, goldens={})


def _model(spec: BundleSpec, tower: Modality) -> str:
    return (spec.image if tower == "image" else spec.text).models[PRECISION]


def _write(spec: BundleSpec, folder: Path) -> BundleSpec:
    wanted = msgspec.structs.replace(spec, files=hashes(folder))
    (folder / SPEC_NAME).write_bytes(encode_spec(wanted))
    return wanted


def _prove(folder: Path, towers: Sequence[Modality]) -> tuple[Golden, Parity]:
    """Run the golden cases with every engine that is here.

    Return the cases with the first engine's vectors, how far those are from PyTorch's, and bounds that hold the others.
    """
    reference = load_golden(open_bundle(folder))
    found = [vectors for engine in installed_engines() if (vectors := _answers(folder, engine, towers, reference))]
    if not found:
        raise QuantizationError("no engine ran the quantized towers on the golden cases, so nothing is proven.")
    own = _with_vectors(reference, found[0])
    expected = _embeddings(reference, towers)
    apart = [_difference(vectors[tower], found[0][tower]) for vectors in found for tower in towers]
    moved = [_difference(found[0][tower], expected[tower]) for tower in towers]
    return own, Parity(
        artifact=f"onnx-{PRECISION}",
        num_cases=sum(len(found[0][tower]) for tower in towers),
        min_cosine=min(cosine for cosine, _ in moved),
        max_abs_difference=max(largest for _, largest in moved),
        cosine_bound=1 - max(_ROOM * (1 - min(cosine for cosine, _ in apart)), _LEAST_COSINE_ROOM),
        abs_bound=max(_ROOM * max(largest for _, largest in apart), _LEAST_ABS),
    )


def _answers(folder: Path, engine: str, towers: Sequence[Modality], golden: Golden) -> dict[Modality, Vectors] | None:
    try:
        embedder = Embedder.load(folder, engine=engine, precision=PRECISION, towers=towers, provider="cpu", verify=None)
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


def _with_vectors(golden: Golden, vectors: Mapping[Modality, Vectors]) -> Golden:
    images, texts = golden.images, golden.texts
    if "image" in vectors:
        images = tuple(_with_vector(case, vector) for case, vector in zip(images, vectors["image"], strict=True))
    if "text" in vectors:
        texts = tuple(_with_vector(case, vector) for case, vector in zip(texts, vectors["text"], strict=True))
    return Golden(images=images, texts=texts)


def _with_vector(case: Case, vector: NDArray[np.float32]) -> Case:
    return msgspec.structs.replace(case, embedding=tuple(float(str(value)) for value in vector))


def _embeddings(golden: Golden, towers: Sequence[Modality]) -> dict[Modality, Vectors]:
    cases: dict[Modality, Sequence[ImageCase | TextCase]] = {"image": golden.images, "text": golden.texts}
    return {tower: np.array([case.embedding for case in cases[tower]], np.float32) for tower in towers}


def _difference(vectors: Vectors, expected: Vectors) -> tuple[float, float]:
    """Return the lowest cosine, and the largest difference of a component."""
    return float(cosines(vectors, expected).min()), float(np.abs(vectors - expected).max())
