"""From a bundle to the same bundle with a quantized variant: measure, choose, prove, write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
import numpy as np
import onnx

from mmalign.retrieval import Recall, Relevance
from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import Budget, lost_points
from mmalign_export.quantization.clipping import find_clipping, with_shares
from mmalign_export.quantization.convolutions import known_bounds
from mmalign_export.quantization.examples import (
    Calibration,
    PixelValues,
    Questions,
    prepared_images,
    read_calibration,
    read_questions,
)
from mmalign_export.quantization.recipes import Recipe, half_recipes, image_recipes, text_recipes
from mmalign_export.quantization.report import QuantizationReport, Trial
from mmalign_export.quantization.resident import resident_mb
from mmalign_export.quantization.search import Found, GoldenFeeds, Tower, pair_recalls, search
from mmalign_export.quantization.trial import open_model, run_all
from mmalign_export.quantization.variant import add_variant
from mmalign_export.staging import check_free
from mmalign_runtime.bundle.golden import ImageCase, TextCase, load_golden
from mmalign_runtime.clipping import Clipping
from mmalign_runtime.config import DEFAULT_ENGINE, Provider
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import BundleSpec, ImageTower, Modality, TextTower
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TokenBatch

logger = logging.getLogger(__name__)

_NUM_CALIBRATION_IMAGES, _NUM_CALIBRATION_TEXTS = 64, 512
_IMAGE_BATCH, _NUM_SCANNED = 8, 16
# In float16, kernels that a GPU chooses by the batch's size round to three digits.
_HALF_INVARIANCE = 1e-3

Reduced = Literal["int8", "fp16"]


def quantize(
    path: str | Path,
    out: str | Path,
    *,
    calibration: str | None,
    evaluation: str,
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
            none.
        evaluation: Pairs that recall is measured on, in the same words; of a configuration, the test split.
        budget: What may be lost, in points of recall and in cosine.
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
        QuantizationError: Nothing qualified for any tower, or no pair is left to calibrate on.
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
        questions = read_questions(evaluation, embedder, max_images)
        examples = _examples(calibration, embedder, precision, questions)
        asks_for_speed = precision == "int8" or embedder.options.provider != "cpu"
        logger.info("quantize: %d images and %d captions to judge by", len(questions.images), len(questions.texts))
        searched = _search(embedder, towers, examples, questions, budget, asks_for_speed=asks_for_speed)
        data = (Path(calibration).name if calibration else "", Path(evaluation).name)
        report = _report(embedder, searched, budget, data, questions)
        report = msgspec.structs.replace(report, precision=precision, asks_for_speed=asks_for_speed)
        bundle = embedder.bundle
        clipping = {} if examples is None else _clipping(embedder, searched.chosen, examples, questions)
    if not report.chosen:
        raise QuantizationError(_nothing_qualified(report))
    report = msgspec.structs.replace(report, clipped={tower: each.tensors for tower, each in clipping.items()})
    models = {tower: found.contents for tower, found in searched.chosen.items()}
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
        if kind == "image":
            bounds = known_bounds(onnx.load_from_string(embedder.bundle.read(embedder.bundle.spec.artifact(kind).file)))
            name = embedder.image.inputs.pixel_values
            items: list[list[Feeds]] = [[{name: image} for image in each.images] for each in (examples, questions)]
        else:
            bounds = {}
            items = [_alone(embedder, each.tokens) for each in (examples, questions)]
        clipping = find_clipping(found.contents, bounds)
        if clipping is not None:
            counted[kind] = with_shares(clipping, found.contents, *items)
    return counted


def _alone(embedder: Embedder, batches: Sequence[TokenBatch]) -> list[Feeds]:
    """Return each text's feeds, without padding."""
    inputs = embedder.text.inputs
    rows = ((batch, at, int(batch.attention_mask[at].sum())) for batch in batches for at in range(len(batch.input_ids)))
    return [
        inputs.feeds(batch.input_ids[at : at + 1, :n], batch.attention_mask[at : at + 1, :n]) for batch, at, n in rows
    ]


def _examples(
    calibration: str | None, embedder: Embedder, precision: Reduced, questions: Questions
) -> Calibration | None:
    if precision == "fp16":
        return None
    if calibration is None:
        raise QuantizationError("ranges of eight bits are taken from pairs. Give them with --calibration.")
    return read_calibration(calibration, embedder, _NUM_CALIBRATION_IMAGES, _NUM_CALIBRATION_TEXTS, questions)


def _nothing_qualified(report: QuantizationReport) -> str:
    if not report.trials:
        return f"{report.engine} ran none of the candidates, so there is nothing to choose. Ask for another --engine."
    towers = dict.fromkeys(trial.tower for trial in report.trials)
    nearest = [max((trial for trial in report.trials if trial.tower == tower), key=Trial.nearness) for tower in towers]
    return (
        f"no recipe is inside the budget {report.budget} and fast enough; the nearest: "
        f"{'; '.join(map(_how_near, nearest))}. Calibrate on more data and on what will be served, or allow more with "
        "--budget."
    )


def _how_near(trial: Trial) -> str:
    return (
        f"{trial.tower} {trial.recipe!r} is {trial.speedup():.2f}x as fast as float32, loses "
        f"{trial.lost_points[1]:.2f} points of recall@1, and has a mean cosine of {trial.mean_cosine:.4f} and a lowest "
        f"golden cosine of {trial.golden_cosine:.4f}, of {trial.golden_worst!r}, {trial.golden_mean:.4f} on average "
        f"({trial.refused or 'inside alone'})"
    )


class _Searched(msgspec.Struct):
    towers: dict[Modality, Tower]
    relevant: Relevance
    trials: list[Trial]
    chosen: dict[Modality, Found]
    pair: dict[Modality, Vectors]
    sizes: dict[Modality, int]
    resident: dict[Modality, float | None]


def _search(
    embedder: Embedder,
    kinds: Sequence[Modality],
    examples: Calibration | None,
    questions: Questions,
    budget: Budget,
    *,
    asks_for_speed: bool,
) -> _Searched:
    relevant = questions.relevant
    batches: dict[Modality, tuple[Feeds, ...]] = {
        "image": _image_feeds(embedder, questions.images),
        "text": tuple(_text_feeds(embedder, tokens) for tokens in questions.tokens),
    }
    sessions = {"image": embedder.image.session, "text": embedder.text.session}
    golden = _golden(embedder)
    reference: dict[Modality, Vectors] = {kind: run_all(sessions[kind], batches[kind]) for kind in batches}

    def recalls(kind: Modality, vectors: Vectors) -> tuple[Recall, Recall]:
        images, texts = (vectors, reference["text"]) if kind == "image" else (reference["image"], vectors)
        return pair_recalls(images, texts, relevant)

    rules: dict[str, float] = {} if asks_for_speed else {"least_speedup": 0.0}
    if examples is None:
        rules["invariance_bound"] = _HALF_INVARIANCE
    towers = {
        kind: Tower(
            kind=kind,
            input_names=tuple(batches[kind][0]),
            batches=batches[kind],
            timed=(_first(batches[kind][0], 1), batches[kind][0]),
            scanned=batches[kind][0] if examples is None else _scanned(embedder, kind, examples),
            float32=sessions[kind],
            reference=reference[kind],
            golden=golden[kind],
            recalls=partial(recalls, kind),
            options=sessions[kind].options,
            **rules,
        )
        for kind in kinds
    }
    found = _Searched(towers, relevant, [], {}, dict(reference), {}, {})
    offered: dict[Modality, list[Found]] = {}
    with TemporaryDirectory() as folder:
        for kind, tower in towers.items():
            contents = embedder.bundle.read(embedder.bundle.spec.artifact(kind).file)
            model = Path(folder) / f"{kind}.onnx"
            model.write_bytes(contents)
            found.sizes[kind] = len(contents)
            found.resident[kind] = resident_mb(contents, tower.timed[0], tower.options)
            trials, offered[kind] = search(tower, _recipes(embedder, kind, model, examples), budget)
            found.trials += trials
    _choose_pair(found, offered, budget)
    return found


def _choose_pair(found: _Searched, offered: dict[Modality, list[Found]], budget: Budget) -> None:
    """Take the fastest of each tower; while the pair loses too much, step back where the next one costs least."""
    before = pair_recalls(found.pair["image"], found.pair["text"], found.relevant)
    reference = dict(found.pair)
    left = {kind: list(candidates) for kind, candidates in offered.items() if candidates}
    while left:
        for kind, candidates in left.items():
            tower = found.towers[kind]
            session = open_model(candidates[0].contents, tower.input_names, tower.options)
            found.pair[kind] = run_all(session, tower.batches)
            session.close()
        after = pair_recalls(found.pair["image"], found.pair["text"], found.relevant)
        if budget.allows(lost_points(before, after), 1.0):
            break
        slowest = min(left, key=lambda kind: _step(left[kind]))
        left[slowest].pop(0)
        if not left[slowest]:
            del left[slowest]
            found.pair[slowest] = reference[slowest]
    found.chosen = {kind: candidates[0] for kind, candidates in left.items()}


def _step(candidates: Sequence[Found]) -> float:
    """Return how many times slower the next candidate is."""
    following = candidates[1].trial.speedup() if len(candidates) > 1 else 1.0
    return candidates[0].trial.speedup() / following


def _recipes(embedder: Embedder, kind: Modality, model: Path, examples: Calibration | None) -> tuple[Recipe, ...]:
    spec = embedder.bundle.spec
    if examples is None:
        return half_recipes(model)
    if kind == "image":
        return image_recipes(model, spec.tower("image", ImageTower), examples)
    return text_recipes(model, spec.tower("text", TextTower), examples)


def _report(
    embedder: Embedder, found: _Searched, budget: Budget, data: tuple[str, str], questions: Questions
) -> QuantizationReport:
    reference = {kind: tower.reference for kind, tower in found.towers.items()}
    images = reference.get("image", found.pair["image"])
    texts = reference.get("text", found.pair["text"])
    before = pair_recalls(images, texts, found.relevant)
    after = pair_recalls(found.pair["image"], found.pair["text"], found.relevant)
    return QuantizationReport(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=cpu_name(),
        engine=embedder.engine.name,
        engine_version=embedder.engine.version(),
        num_threads=embedder.options.pool.num_threads,
        provider=embedder.options.provider,
        calibration=data[0],
        evaluation=data[1],
        num_images=len(questions.images),
        num_captions=len(questions.texts),
        budget=str(budget),
        least_golden_cosine=budget.golden_cosine,
        fp32_recall=before,
        fp32_size_bytes=found.sizes,
        fp32_resident_mb=found.resident,
        trials=tuple(found.trials),
        chosen={kind: candidate.trial for kind, candidate in found.chosen.items()},
        pair_recall=after,
        pair_lost_points=lost_points(before, after),
    )


def _image_feeds(embedder: Embedder, images: Sequence[PixelValues]) -> tuple[Feeds, ...]:
    name = embedder.image.inputs.pixel_values
    starts = range(0, len(images), _IMAGE_BATCH)
    return tuple({name: np.concatenate(images[start : start + _IMAGE_BATCH])} for start in starts)


def _text_feeds(embedder: Embedder, tokens: TokenBatch) -> Feeds:
    return embedder.text.inputs.feeds(tokens.input_ids, tokens.attention_mask)


def _scanned(embedder: Embedder, kind: Modality, examples: Calibration) -> Feeds:
    if kind == "image":  # from one end to the other: the golden photographs stand last
        every = max(1, len(examples.images) // _NUM_SCANNED)
        name = embedder.image.inputs.pixel_values
        return {name: np.concatenate(examples.images[::every][:_NUM_SCANNED])}
    return _text_feeds(embedder, examples.tokens[0])


def _golden(embedder: Embedder) -> dict[Modality, GoldenFeeds]:
    golden = load_golden(embedder.bundle)
    images = prepared_images([embedder.bundle.source(case.file) for case in golden.images], embedder)
    tokens = [embedder.text.tokenizer.encode([case.text]) for case in golden.texts]
    feeds: dict[Modality, tuple[Feeds, ...]] = {
        "image": tuple({embedder.image.inputs.pixel_values: image} for image in images),
        "text": tuple(_text_feeds(embedder, each) for each in tokens),
    }
    cases: dict[Modality, Sequence[ImageCase | TextCase]] = {"image": golden.images, "text": golden.texts}
    return {
        kind: GoldenFeeds(
            tuple(case.name for case in cases[kind]),
            feeds[kind],
            np.array([case.embedding for case in cases[kind]], np.float32),
        )
        for kind in feeds
    }


def _first(feeds: Feeds, count: int) -> Feeds:
    return {name: values[:count] for name, values in feeds.items()}
