"""From a run to a bundle: trace, write, prove, seal. A bundle that is not equal to eager PyTorch is never written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mmalign.data import DataError, Pair
from mmalign.errors import CheckpointError
from mmalign.evaluate import Evaluation
from mmalign.own_pairs import OWN_PAIRS, read_own_pairs, unseen, usable_pairs
from mmalign.pairs import load_sources
from mmalign.preprocess import write_preprocess
from mmalign.run import Checkpoint, Run, load_run
from mmalign_export.artifacts import onnx_artifact, torch_artifact
from mmalign_export.bundle import (
    CARD,
    PREPROCESS,
    TEXT_AOTI,
    TEXT_MODEL,
    VISION_AOTI,
    VISION_MODEL,
    Proven,
    write_golden,
    write_spec,
)
from mmalign_export.card import model_card
from mmalign_export.golden import GoldenFile, golden_files, golden_texts, make_golden
from mmalign_export.parity import Artifact, check_parity
from mmalign_export.side_files import write_side_files
from mmalign_export.staging import check_free, staged
from mmalign_export.to_compiled import compile_tower, load_aoti, package_aoti
from mmalign_export.to_onnx import OPSET_VERSION, check_opset, export_onnx
from mmalign_export.towers import TracedTower, image_tower, text_tower
from mmalign_runtime.bench import BenchPlan, golden_images, run_bench
from mmalign_runtime.bench import golden_texts as bench_texts
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.spec import AOTINDUCTOR, TORCH_COMPILE, BundleSpec, Modality, Parity

logger = logging.getLogger(__name__)

Format = Literal["onnx", "aoti", "compile"]

# A card's latency is a first impression, not a benchmark: few rounds, and the two batch sizes people ask about.
_CARD_ROUNDS = 5
_CARD_BATCH_SIZES = (1, 8)


def export_run(
    run_dir: Path,
    out: Path,
    *,
    formats: Sequence[Format] = ("onnx",),
    checkpoint: Checkpoint = "best",
    opset_version: int = OPSET_VERSION,
    force: bool = False,
) -> BundleSpec:
    """Export a run to a bundle at `out`, a folder or a .mmalign file, and return its spec.

    "onnx" is always written; "aoti" adds AOTInductor packages, "compile" checks torch.compile in this process. Raises
    ParityError, with figures, when any of them differs from eager PyTorch, ExportError for an opset that cannot be
    written or a place that is taken, and CheckpointError for a run that is damaged; nothing is left behind then. The
    data that the run was trained on is not needed.
    """
    check_opset(opset_version)
    check_free(out, force=force)
    run = load_run(run_dir, checkpoint)
    _evaluation(run)  # the card needs it at the end: a damaged one is told now
    return export_model(run, _own_pairs(run), out, formats=formats, opset_version=opset_version, force=force)


def export_model(
    run: Run,
    own_pairs: Sequence[Pair],
    out: Path,
    *,
    formats: Sequence[Format] = ("onnx",),
    opset_version: int = OPSET_VERSION,
    force: bool = False,
    image_files: Sequence[GoldenFile] | None = None,
) -> BundleSpec:
    """Export a run in memory; the first of `own_pairs` that can be embedded join the golden cases.

    Errors as `export_run`.

    `image_files` take the place of the golden images that are usually made.
    """
    check_opset(opset_version)
    towers = (image_tower(run.model, run.config.image), text_tower(run.model, run.config.text))
    with staged(out, force=force) as folder:
        (folder / "onnx").mkdir()
        write_preprocess(run.config.image, folder / PREPROCESS)
        for tower, name in zip(towers, (VISION_MODEL, TEXT_MODEL), strict=True):
            logger.info("export: %s", name)
            export_onnx(tower, folder / name, opset_version)
        if "aoti" in formats:
            for tower, name in zip(towers, (VISION_AOTI, TEXT_AOTI), strict=True):
                logger.info("export: %s (compiling)", name)
                package_aoti(tower, folder / name)
        write_side_files(run, folder)
        own_pairs = usable_pairs(own_pairs, run.config.image, run.config.text)
        texts = golden_texts(own_pairs, run.config.text.context_length)
        files = golden_files(own_pairs) if image_files is None else image_files
        golden = make_golden(run, files, texts, folder)
        write_golden(golden, folder)
        write_spec(run, folder, {}, opset_version)  # unproven yet: the runtime reads it to be proven
        proven = _prove(run, golden, towers, formats, folder)
        return _finish(run, folder, proven, opset_version)


def _prove(
    run: Run, golden: Golden, towers: tuple[TracedTower, TracedTower], formats: Sequence[Format], folder: Path
) -> Proven:
    artifacts: list[Artifact] = [onnx_artifact(folder)]
    if "aoti" in formats:
        artifacts.append(
            torch_artifact(AOTINDUCTOR, run, load_aoti(folder / VISION_AOTI), load_aoti(folder / TEXT_AOTI))
        )
    if "compile" in formats:
        image, text = (compile_tower(tower) for tower in towers)
        artifacts.append(torch_artifact(TORCH_COMPILE, run, image, text))
    proven: dict[str, dict[Modality, Parity]] = {}
    for artifact in artifacts:
        proven[artifact.engine] = check_parity(artifact, golden, folder)
        for kind, parity in proven[artifact.engine].items():
            logger.info(
                "parity: %s, %s tower, over %d golden cases, lowest cosine %.8f, largest difference %.1e",
                artifact.engine,
                kind,
                parity.num_cases,
                parity.min_cosine,
                parity.max_abs_difference,
            )
    return proven


def _finish(run: Run, folder: Path, proven: Proven, opset_version: int) -> BundleSpec:
    """Write the card, whose figures need the proven bundle, then the spec that seals it too."""
    spec = write_spec(run, folder, proven, opset_version)
    embedder = Embedder.load(folder, provider="cpu", verify=None)
    bundle = embedder.bundle
    report = run_bench(
        embedder,
        golden_images(bundle),
        bench_texts(bundle),
        plan=BenchPlan(parts=("stages",), batch_sizes=_CARD_BATCH_SIZES, num_rounds=_CARD_ROUNDS),
    )
    card = model_card(spec, _evaluation(run), report.timings, cpu_name(), embedder.info().num_threads)
    (folder / CARD).write_text(card, encoding="utf-8")
    return write_spec(run, folder, proven, opset_version)


def _evaluation(run: Run) -> Evaluation | None:
    path = run.folder.file("evaluation.json")
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Run `mmalign evaluate {run.folder.path}` again, or remove it."
        ) from error


def _own_pairs(run: Run) -> tuple[Pair, ...]:
    """Return a few real inputs of this model that it was not trained on: those in its folder, or else of its data.

    A run that was trained before they were kept, on a machine without its data, has none.
    """
    kept = read_own_pairs(run.folder.file(OWN_PAIRS))
    if kept is not None:
        return kept
    try:
        return unseen(load_sources(run.config.data)[0].splits)
    except (DataError, OSError) as error:
        logger.warning("the golden cases have no pairs of the run's own, since its data cannot be read: %s", error)
        return ()
