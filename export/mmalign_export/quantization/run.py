"""From a bundle to the same bundle with a quantized variant: measure, choose, prove, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import onnx

from mmalign.memory import within_memory
from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import Budget, lost_points
from mmalign_export.quantization.clipping import find_clipping, with_shares
from mmalign_export.quantization.convolutions import known_bounds
from mmalign_export.quantization.data import Calibration, Data, Questions, read_data
from mmalign_export.quantization.report import QuantizationReport
from mmalign_export.quantization.search import Found
from mmalign_export.quantization.summary import nothing_qualified
from mmalign_export.quantization.tower_search import PairOfTowers, Reduced, TowerSearch, choose_pair, items_of
from mmalign_export.quantization.variant import add_variant
from mmalign_export.staging import check_free
from mmalign_runtime.clipping import Clipping
from mmalign_runtime.config import DEFAULT_ENGINE, Provider
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.spec import BundleSpec, Modality


@within_memory("quantization", "Quantize with a smaller --max-images.", QuantizationError)
def quantize(
    path: str | Path,
    out: str | Path,
    *,
    calibration: str | None = None,
    evaluation: str | None = None,
    budget: Budget,
    precision: Reduced = "int8",
    engine: str = DEFAULT_ENGINE,
    provider: Provider = "cpu",
    towers: Sequence[Modality] = ("image", "text"),
    num_threads: int | None = None,
    max_images: int = 1000,
    force: bool = False,
) -> tuple[BundleSpec, QuantizationReport]:
    """Add to a bundle the fastest towers of fewer bits that stay inside a budget here, and write it.

    A tower for which nothing qualifies stays as it is.

    Args:
        path: The bundle: a folder or a .mmalign file.
        out: Where to write the result, which may be `path`.
        calibration: Pairs that ranges of "int8" are taken from: a file or folder as for training, or a training
            configuration (.toml), whose train split they then are. Images of `evaluation` are left out. "fp16" needs
            none, and an imported bundle may do without: ranges are then of the photograph and texts of this package.
        evaluation: Pairs that recall is measured on, in the same words; of a configuration, the test split. An imported
            bundle may do without: what a tower loses is then judged by cosine alone, on the package's own.
        budget: What may be lost, in points of recall (where `evaluation` is given) and in cosine.
        precision: "int8" has a ladder of recipes. "fp16" is for GPUs: with provider "cuda" it has to be faster there;
            on a CPU it is made all the same, and the report says that no GPU timed it.
        engine: The engine to be fast with.
        provider: The provider to be fast on.
        towers: Which towers.
        num_threads: Threads of the engine; what is available when None.
        max_images: Images to measure recall on, at most.
        force: Replace the bundle at `out`.

    Returns:
        The contents of the new bundle.json, and the report of everything that was tried.

    Raises:
        QuantizationError: Nothing qualified for any tower, pairs are needed and not given, or none is left to calibrate
            on.
        ExportError: `out` is taken.
        DataError: The pairs cannot be read.
        BundleError: The bundle cannot be read.

    Example:
        >>> budget = parse_budget("recall@1=0.5")
        >>> _, report = quantize(
        ...     "bundle", "small", calibration="train.toml", evaluation="train.toml", budget=budget
        ... )  # doctest: +SKIP
    """
    check_free(Path(out), force=force)  # before the minutes that measuring takes
    with Embedder.load(path, engine=engine, provider=provider, num_threads=num_threads) as embedder:
        _check_whole(embedder.bundle.spec, towers)
        data = read_data(embedder, calibration, evaluation, budget, max_images, is_calibrated=precision == "int8")
        search = TowerSearch(embedder, data, precision)
        offered = {kind: search.offered(kind, budget) for kind in towers}
        pair = choose_pair(search.towers, offered, search.float32, data.questions.relevant, budget)
        report = _report(embedder, search, pair, data, budget)
        bundle = embedder.bundle
        clipping = {} if data.examples is None else _clipping(embedder, pair.chosen, data.examples, data.questions)
    if not report.chosen:
        raise QuantizationError(nothing_qualified(report))
    report = msgspec.structs.replace(report, clipped={tower: each.tensors for tower, each in clipping.items()})
    models = {tower: found.contents for tower, found in pair.chosen.items()}
    return add_variant(bundle, models, report, Path(out), force=force, clipping=clipping), report


def _check_whole(spec: BundleSpec, towers: Sequence[Modality]) -> None:
    """Raise QuantizationError for a tower whose weights lie beside it: recipes rewrite a model as one message."""
    for tower in towers:
        if external := spec.artifact(tower).external:
            raise QuantizationError(
                f"the {tower} tower keeps weights beside its model, in {', '.join(external)}; expected a model of one "
                "file, at most 2 GB. Quantize the other tower alone (towers)."
            )


def _clipping(
    embedder: Embedder, chosen: Mapping[Modality, Found], examples: Calibration, questions: Questions
) -> Clipping:
    """Return what counts each chosen tower's clipped values, with the shares of calibration and of the questions."""
    counted: Clipping = {}
    for kind, found in chosen.items():
        float32 = onnx.load_from_string(embedder.bundle.read(embedder.bundle.spec.artifact(kind).file))
        clipping = find_clipping(found.contents, known_bounds(float32))
        if clipping is not None:
            items = ([item.feeds for item in items_of(embedder, kind, each)] for each in (examples, questions))
            counted[kind] = with_shares(clipping, found.contents, *items)
    return counted


def _report(
    embedder: Embedder, search: TowerSearch, pair: PairOfTowers, data: Data, budget: Budget
) -> QuantizationReport:
    recalls = pair.recalls()
    before, after = (None, None) if recalls is None else recalls
    return QuantizationReport(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=cpu_name(),
        engine=embedder.engine.name,
        engine_version=embedder.engine.version(),
        num_threads=embedder.options.pool.num_threads,
        provider=embedder.options.provider,
        precision=search.precision,
        asks_for_speed=search.asks_for_speed,
        calibration=data.calibration,
        evaluation=data.evaluation,
        num_images=len(data.questions.images),
        num_captions=len(data.questions.texts),
        budget=str(budget),
        least_golden_cosine=budget.golden_cosine,
        fp32_recall=before,
        fp32_size_bytes=search.sizes,
        fp32_resident_mb=search.resident,
        trials=tuple(search.trials),
        untried=search.untried,
        chosen={kind: candidate.trial for kind, candidate in pair.chosen.items()},
        pair_recall=after,
        pair_lost_points={} if recalls is None else lost_points(*recalls),
    )
