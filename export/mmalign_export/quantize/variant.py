"""Adds quantized towers to a bundle: their files, bounds for the golden cases, the report and its chart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
import numpy as np

from mmalign_export.bundle import CARD, hashes
from mmalign_export.errors import QuantizationError
from mmalign_export.quantize.chart import CHART, write_chart
from mmalign_export.quantize.report import REPORT, QuantizationReport
from mmalign_export.quantize.section import with_section
from mmalign_export.quantize.trial import cosines
from mmalign_export.staging import staged
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.engines import installed_engines
from mmalign_runtime.errors import BundleError, EngineError, ProviderError
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, Modality, Parity, encode_spec
from mmalign_runtime.streaming import Vectors

logger = logging.getLogger(__name__)

PRECISION: Literal["int8"] = "int8"
# How much further than here the vectors may be from PyTorch's elsewhere: other processors round other sums. One that
# saturates, as eight-bit products do without VNNI, is further off by far.
_ROOM = 2.0
_LEAST_COSINE_ROOM, _LEAST_ABS = 1e-3, 1e-2


def add_variant(
    bundle: Bundle, models: Mapping[Modality, bytes], report: QuantizationReport, out: Path, *, force: bool
) -> BundleSpec:
    """Write the bundle with the models at `out`, a folder or a .mmalign file, and return its spec.

    Raises ExportError when `out` is there and `force` is not set, QuantizationError when no engine can prove it.
    """
    with staged(out, force=force) as folder:
        replaced = {files.models.get(PRECISION) for files in (bundle.spec.image, bundle.spec.text)}
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
        parity = _prove(folder, tuple(models))
        others = tuple(entry for entry in spec.parity if entry.artifact != parity.artifact)
        return _write(msgspec.structs.replace(spec, parity=(*others, parity)), folder)


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
    return msgspec.structs.replace(spec, **changed, quantization=REPORT)


def _model(spec: BundleSpec, tower: Modality) -> str:
    return (spec.image if tower == "image" else spec.text).models[PRECISION]


def _write(spec: BundleSpec, folder: Path) -> BundleSpec:
    wanted = msgspec.structs.replace(spec, files=hashes(folder))
    (folder / SPEC_NAME).write_bytes(encode_spec(wanted))
    return wanted


def _prove(folder: Path, towers: Sequence[Modality]) -> Parity:
    """Run the golden cases with every engine that is here, and return bounds that hold all of them."""
    lowest, furthest, num_cases = 1.0, 0.0, 0
    for engine in installed_engines():
        try:
            embedder = Embedder.load(
                folder, engine=engine, precision=PRECISION, towers=towers, provider="cpu", verify=None
            )
        except (BundleError, ProviderError) as error:
            logger.info("quantize: not proven with %s: %s", engine, error)
            continue
        try:
            with embedder:
                compared = [_compare(embedder, tower) for tower in towers]
        except EngineError as error:
            logger.warning("quantize: not proven with %s: %s", engine, error)
            continue
        num_cases = sum(count for count, _, _ in compared)
        lowest = min(lowest, *(cosine for _, cosine, _ in compared))
        furthest = max(furthest, *(moved for _, _, moved in compared))
        logger.info("quantize: %s over %d golden cases, lowest cosine %.5f", engine, num_cases, lowest)
    if not num_cases:
        raise QuantizationError("no engine ran the quantized towers on the golden cases, so nothing is proven.")
    return Parity(
        artifact=f"onnx-{PRECISION}",
        num_cases=num_cases,
        min_cosine=lowest,
        max_abs_difference=furthest,
        cosine_bound=1 - max(_ROOM * (1 - lowest), _LEAST_COSINE_ROOM),
        abs_bound=max(_ROOM * furthest, _LEAST_ABS),
    )


def _compare(embedder: Embedder, tower: Modality) -> tuple[int, float, float]:
    """Return how many golden cases there are, the lowest cosine and the largest difference."""
    golden = load_golden(embedder.bundle)
    if tower == "image":
        expected = np.array([case.embedding for case in golden.images], np.float32)
        vectors: Vectors = embedder.encode_image([embedder.bundle.source(case.file) for case in golden.images])
    else:
        expected = np.array([case.embedding for case in golden.texts], np.float32)
        vectors = embedder.encode_text([case.text for case in golden.texts])
    return len(vectors), float(cosines(vectors, expected).min()), float(np.abs(vectors - expected).max())
