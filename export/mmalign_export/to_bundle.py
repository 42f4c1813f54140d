"""From a model to a bundle: trace, write, prove, seal. A bundle that is not equal to eager PyTorch is never written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from mmalign.dual_model import DualModel
from mmalign.memory import within_memory
from mmalign.pixels.preprocess import write_preprocess
from mmalign.run.own_pairs import usable_pairs
from mmalign_export.attention import attention_golden, check_attention
from mmalign_export.bundle import (
    CARD,
    PREPROCESS,
    TOWER_FILES,
    Proven,
    check_format,
    with_proof,
    write_golden,
    write_sealed,
    write_spec,
)
from mmalign_export.card import model_card
from mmalign_export.errors import ExportError
from mmalign_export.golden import GoldenFile, golden_files, golden_texts, make_golden
from mmalign_export.parity import Artifact, check_parity, onnx_artifact, torch_artifact
from mmalign_export.side_files import write_side_files
from mmalign_export.sources import DEFAULT_OPTIONS, SourceOptions, read_source
from mmalign_export.sources.proof import check_golden, golden_bounds, golden_rounding, prove_bundle, prove_model
from mmalign_export.sources.protocol import Imported
from mmalign_export.staging import check_free, staged
from mmalign_export.to_compiled import compile_tower, load_aoti, package_aoti
from mmalign_export.to_onnx import LARGEST_FILE_BYTES, OPSET_VERSION, check_opset, export_onnx
from mmalign_runtime.bench.run import BenchPlan, run_bench
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.spec import AOTINDUCTOR, ONNX, TORCH_COMPILE, BundleSpec, ImportRecord, Modality, Parity

logger = logging.getLogger(__name__)

Format = Literal["onnx", "aoti", "compile"]

# A card's latency is a first impression, not a benchmark: as few rounds as have a middle, and the two batch sizes
# people ask about.
_CARD_ROUNDS = 3
_CARD_BATCH_SIZES = (1, 8)
# Of a picture of a usual size: to decode a camera's photograph takes longer than all the others.
_CARD_PIXELS = 1_000_000


@within_memory("the export", "Export on a machine that has more.", ExportError)
def export(
    location: str | Path,
    out: str | Path,
    *,
    kind: str = "run",
    options: SourceOptions = DEFAULT_OPTIONS,
    formats: Sequence[Format] = ("onnx",),
    opset_version: int = OPSET_VERSION,
    force: bool = False,
) -> BundleSpec:
    """Export a trained model to a bundle whose vectors are proven equal to eager PyTorch's.

    Args:
        location: Where the model is: a run's folder. The data that it was trained on is not needed.
        out: The bundle to write: a folder, or a .mmalign file.
        kind: The kind of source, as `read_source` takes it.
        options: What else to say of the source, such as which checkpoint of a run.
        formats: "onnx" is always written; "aoti" adds AOTInductor packages, "compile" proves torch.compile in this
            process.
        opset_version: The ONNX opset of the towers, 18 to 25.
        force: Replace the bundle at `out`.

    Returns:
        The contents of its bundle.json.

    Raises:
        ParityError: An artifact differs from eager PyTorch; the message has the figures.
        FormatLimitError: The bundle format has no place for a part of the model.
        ExportError: The opset cannot be written, the place is taken, a tower cannot be traced, or the memory does not
            suffice.
        CheckpointError: The run is damaged. Nothing is left behind in any of these cases.

    Example:
        >>> export("runs/latest", "bundle").space_id  # doctest: +SKIP
        'mma-1c0fb5906ab639c333b8f90acb4f1ccd'
    """
    check_opset(opset_version)
    check_free(Path(out), force=force)
    imported = read_source(kind, location, options)
    return export_imported(imported, out, formats=formats, opset_version=opset_version, force=force)


@within_memory("the export", "Export on a machine that has more.", ExportError)
def export_model(
    model: DualModel,
    out: str | Path,
    *,
    formats: Sequence[Format] = ("onnx",),
    opset_version: int = OPSET_VERSION,
    force: bool = False,
    image_files: Sequence[GoldenFile] | None = None,
    largest_file_bytes: int = LARGEST_FILE_BYTES,
) -> BundleSpec:
    """Export a model in memory. The first of its own pairs that can be embedded join the golden cases.

    Args:
        model: The model, on the CPU.
        out: As for `export`, and so are `formats`, `opset_version` and `force`.
        formats: See `export`.
        opset_version: See `export`.
        force: See `export`.
        image_files: Golden images that take the place of those that are usually made.
        largest_file_bytes: Weights that would make an .onnx file larger go into a file beside it.

    Returns:
        The contents of its bundle.json.

    Raises:
        ExportError: As `export`.
        ModelError: A tower gives vectors of another shape than declared, or that are not finite.

    Example:
        >>> export_model(model, "bundle")  # doctest: +SKIP
    """
    return export_imported(
        Imported(model=model),
        out,
        formats=formats,
        opset_version=opset_version,
        force=force,
        image_files=image_files,
        largest_file_bytes=largest_file_bytes,
    )


def export_imported(
    imported: Imported,
    out: str | Path,
    *,
    formats: Sequence[Format] = ("onnx",),
    opset_version: int = OPSET_VERSION,
    force: bool = False,
    image_files: Sequence[GoldenFile] | None = None,
    largest_file_bytes: int = LARGEST_FILE_BYTES,
) -> BundleSpec:
    """Export what a source gave, proven against its own library where it has one. Arguments as of `export_model`.

    Raises ProofError and SourceError, beside what `export_model` raises; nothing is left behind.
    """
    model = imported.model
    check_opset(opset_version)
    check_format(model)
    with staged(Path(out), force=force) as folder:
        own_pairs = usable_pairs(model.own_pairs, model.image.spec, model.text.spec)
        texts = golden_texts(own_pairs, model.text.spec.context_length)
        files = golden_files(own_pairs) if image_files is None else image_files
        golden = make_golden(model, files, texts, folder)
        if model.attention is not None:
            golden = attention_golden(model, model.attention, golden, folder)
        reference = (
            None
            if imported.original is None
            else prove_model(model, imported.original, files, golden, imported.resized_as_stored)
        )
        if imported.must_differ and reference is None:
            check_golden(golden)
        opset_version = _write_towers(model, formats, folder, opset_version, largest_file_bytes)
        write_side_files(model, folder)
        write_golden(golden, folder)
        spec = write_spec(model, folder, opset_version)  # unproven yet: the runtime reads it to be proven
        with Embedder.load(folder, provider="cpu", towers=tuple(model.towers), verify=None) as embedder:  # just written
            served = onnx_artifact(embedder)
            proven = _prove(model, served, golden, formats, folder, is_import=reference is not None)
            if model.attention is not None:
                attention = check_attention(model, model.attention, embedder, golden)
                proven = {**proven, ONNX: {**proven[ONNX], **attention}}
            record = None
            if reference is not None:
                golden, record = prove_bundle(imported, reference, served, golden, folder)
                write_golden(golden, folder)
                proven = _bounded(proven, record)
            return _finish(model, embedder, golden, with_proof(spec, folder, proven, record))


def _bounded(proven: Proven, record: ImportRecord) -> Proven:
    """Return the parity of every engine with the bounds of golden vectors that are the library's."""
    return {
        engine: {tower: golden_bounds(parity, record, cast("Modality", tower)) for tower, parity in towers.items()}
        for engine, towers in proven.items()
    }


def _write_towers(
    model: DualModel, formats: Sequence[Format], folder: Path, opset_version: int, largest_file_bytes: int
) -> int:
    """Write what each engine loads, and return the newest opset that a tower came out with."""
    (folder / "onnx").mkdir()
    write_preprocess(model.image.spec, folder / PREPROCESS)
    written = []
    for name, graph in model.traced().items():
        file = TOWER_FILES[ONNX][name]
        logger.info("export: %s", file)
        written.append(export_onnx(graph, folder / file, opset_version, largest_file_bytes))
    for name, tower in model.towers.items():
        if "aoti" in formats:
            file = TOWER_FILES[AOTINDUCTOR][name]
            logger.info("export: %s (compiling)", file)
            package_aoti(tower, folder / file)
    return max(written)


def _prove(
    model: DualModel, served: Artifact, golden: Golden, formats: Sequence[Format], folder: Path, *, is_import: bool
) -> Proven:
    bounds = (golden_rounding(model, golden, folder),) if is_import else ()
    artifacts: list[Artifact] = [served]
    if "aoti" in formats:
        packages = {name: load_aoti(folder / TOWER_FILES[AOTINDUCTOR][name]) for name in model.towers}
        artifacts.append(torch_artifact(AOTINDUCTOR, model, packages))
    if "compile" in formats:
        compiled = {name: compile_tower(tower) for name, tower in model.towers.items()}
        artifacts.append(torch_artifact(TORCH_COMPILE, model, compiled))
    proven: dict[str, dict[str, Parity]] = {}
    for artifact in artifacts:
        found = check_parity(artifact, golden, folder, *bounds)
        proven[artifact.engine] = dict(found.items())
        for kind, parity in found.items():
            logger.info(
                "parity: %s, %s tower, over %d golden cases, lowest cosine %.8f, largest difference %.1e",
                *(artifact.engine, kind, parity.num_cases, parity.min_cosine, parity.max_abs_difference),
            )
    return proven


def _finish(model: DualModel, embedder: Embedder, golden: Golden, spec: BundleSpec) -> BundleSpec:
    """Write the card, whose figures need the proven bundle, then the spec that seals it too."""
    folder = embedder.bundle.path
    report = run_bench(
        embedder,
        [folder / name for name in _card_pictures(golden)],
        [case.text for case in golden.texts],
        plan=BenchPlan(parts=("stages",), batch_sizes=_CARD_BATCH_SIZES, num_rounds=_CARD_ROUNDS),
    )
    card = model_card(spec, model.evaluation, report.timings, cpu_name(), embedder.info().num_threads)
    (folder / CARD).write_text(card, encoding="utf-8")
    return write_sealed(spec, folder)


def _card_pictures(golden: Golden) -> list[str]:
    """Return the files to time for the card: as many as its larger batch, those of a usual size first."""
    usual_first = sorted(golden.images, key=lambda case: case.height * case.width > _CARD_PIXELS)
    return [case.file for case in usual_first[: max(_CARD_BATCH_SIZES)]]
