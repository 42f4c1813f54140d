"""Finds the fastest candidate of a tower that stays inside the budget, on this machine and with one engine.

Every recipe is tried whole. One that loses too much is tried again with layers left in float32, those that a scan found
most sensitive or the first of the network, as long as it could still be the fastest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import torch

from mmalign.figures.retrieval import Recall, Relevance, recall_both_ways
from mmalign.progress import track
from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import Budget, lost_points
from mmalign_export.quantization.recipes import Recipe
from mmalign_export.quantization.report import LEAST_SPEEDUP, Trial
from mmalign_export.quantization.trial import cosines, largest_move, open_model, resident_mb, run_all, time_beside
from mmalign_runtime.engine.session import Feeds, Session, SessionOptions
from mmalign_runtime.errors import BundleError, EngineError
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import Vectors

logger = logging.getLogger(__name__)

# A vector that moves by more depends on its batch-mates; float32's own sums move by 1e-7.
_INVARIANCE_BOUND = 1e-6
# Timings of one model repeat to within a tenth on a shared machine.
_ALIKE = 0.9
_NUM_EXCLUDED = (1, 2, 4, 8, 16, 32)
_FIRST_LAYERS = (1, 2, 3, 4, 5, 6, 9, 13)

Recalls = Callable[[Vectors], tuple[Recall, Recall]]


class GoldenFeeds(msgspec.Struct, frozen=True):
    """A tower's golden cases: their names, each one's feeds, and PyTorch's vectors, (N, D)."""

    names: tuple[str, ...]
    feeds: tuple[Feeds, ...]
    reference: Vectors


class Tower(msgspec.Struct, frozen=True):
    """A tower under search: its batches and what float32 gave for them; `timed` are the feeds that speed counts on.

    `recalls` is None where nothing measures recall. `scanned` is a small batch for the sensitivity scan. A candidate is
    refused that is less than `least_speedup` times as fast as float32, or moves a vector by more than
    `invariance_bound` when its batch-mates leave.
    """

    kind: Modality
    input_names: tuple[str, ...]
    batches: tuple[Feeds, ...]
    timed: tuple[Feeds, ...]
    scanned: Feeds
    float32: Session
    reference: Vectors
    golden: GoldenFeeds
    recalls: Recalls | None
    options: SessionOptions
    least_speedup: float = LEAST_SPEEDUP
    invariance_bound: float = _INVARIANCE_BOUND


class Found(msgspec.Struct, frozen=True):
    """The chosen candidate, and its file's bytes."""

    trial: Trial
    contents: bytes


class _Kept(msgspec.Struct, frozen=True):
    """Layers that stay in float32, and how they were picked."""

    layers: frozenset[str]
    how: str


_WHOLE = _Kept(frozenset(), "")


def pair_recalls(images: Vectors, texts: Vectors, relevant: Relevance) -> tuple[Recall, Recall]:
    """Return recall (image to text, text to image) of vectors (N, D) and (M, D)."""
    return recall_both_ways(torch.from_numpy(images), torch.from_numpy(texts), relevant)


def search(tower: Tower, recipes: Sequence[Recipe], budget: Budget) -> tuple[list[Trial], list[Found]]:
    """Try a ladder; return every trial, and those that could be offered, fastest first."""
    trials: list[Trial] = []
    offered: list[Found] = []
    for recipe in track(recipes, f"{tower.kind}, recipes", len(recipes)):  # minutes each, of a large tower
        found = _try(tower, recipe, _WHOLE, budget)
        if found is None:
            continue
        trials.append(found.trial)
        if not found.trial.refused:
            offered.append(found)
    best = max((found.trial.speedup() for found in offered), default=tower.least_speedup)
    for recipe, whole in _promising(recipes, trials, best):
        for series in _exclusions(tower, recipe):
            for kept in series:
                found = _try(tower, recipe, kept, budget)
                if found is None:
                    continue
                trials.append(found.trial)
                if not found.trial.refused:
                    offered.append(found)
                if found.trial.speedup() < tower.least_speedup:
                    break  # with more layers in float32 it is slower still
        logger.info("quantize: %s, %s: %.2fx whole", tower.kind, recipe.name, whole.speedup())
    return trials, _ranked(offered)


def _ranked(offered: Sequence[Found]) -> list[Found]:
    """Return the fastest first; of those as fast as it but for noise, the most exact."""
    left, ranked = list(offered), []
    while left:
        fastest = max(found.trial.speedup() for found in left)
        alike = [found for found in left if found.trial.speedup() >= fastest * _ALIKE]
        ranked.append(max(alike, key=lambda found: found.trial.mean_cosine))
        left.remove(ranked[-1])
    return ranked


def _promising(recipes: Sequence[Recipe], trials: Sequence[Trial], best: float) -> Iterator[tuple[Recipe, Trial]]:
    """Yield the recipe that lost least among those that lost too much and are faster than what can be offered."""
    by_name = {trial.recipe: trial for trial in trials if not trial.excluded}
    lossy = [
        (recipe, by_name[recipe.name])
        for recipe in recipes
        if recipe.layers
        and not recipe.refused
        and recipe.name in by_name
        and by_name[recipe.name].refused
        and by_name[recipe.name].speedup() > best
    ]
    yield from sorted(lossy, key=lambda pair: -pair[1].nearness())[:1]


def _exclusions(tower: Tower, recipe: Recipe) -> Iterator[list[_Kept]]:
    """Yield series of choices of layers to keep, each with more of them than the one before."""
    ranked = _sensitivities(tower, recipe)
    num_layers = len(recipe.layers)
    yield [_Kept(frozenset(ranked[:n]), f"{n} most sensitive") for n in _NUM_EXCLUDED if n <= num_layers]
    yield [_Kept(frozenset(recipe.layers[:n]), f"first {n}") for n in _FIRST_LAYERS if n <= num_layers]


def _sensitivities(tower: Tower, recipe: Recipe) -> list[str]:
    """Return the layers, most sensitive first: each is rounded alone, and the cosine to float32 is what it costs."""
    reference = tower.float32.run(tower.scanned)
    lost: dict[str, float] = {}
    for layer in recipe.layers:
        contents = recipe.build(frozenset(recipe.layers) - {layer}).SerializeToString()
        session = open_model(contents, tower.input_names, tower.options)
        lost[layer] = float(1 - cosines(session.run(tower.scanned), reference).mean())
        session.close()
    return sorted(lost, key=lambda layer: -lost[layer])


def _try(tower: Tower, recipe: Recipe, kept: _Kept, budget: Budget) -> Found | None:
    """Measure one candidate; None when it cannot be made of this tower, or the engine cannot run it."""
    try:
        contents = recipe.build(kept.layers).SerializeToString()
        session = open_model(contents, tower.input_names, tower.options)
        vectors = run_all(session, tower.batches)
    except QuantizationError as error:
        logger.warning("quantize: %s, %s: cannot be made: %s", tower.kind, recipe.name, error)
        return None
    except (BundleError, EngineError) as error:
        logger.warning("quantize: %s, %s: %s cannot run it: %s", tower.kind, recipe.name, tower.options.engine, error)
        return None
    if not np.isfinite(vectors).all():
        logger.warning("quantize: %s, %s: its vectors are no numbers", tower.kind, recipe.name)
        session.close()
        return None
    found = cosines(vectors, tower.reference)
    golden = cosines(run_all(session, tower.golden.feeds), tower.golden.reference)
    recall, lost = _recall(tower, vectors)
    trial = Trial(
        tower=tower.kind,
        recipe=recipe.name,
        excluded=tuple(sorted(kept.layers)),
        kept=kept.how,
        speeds=tuple(time_beside(session, tower.float32, feeds) for feeds in tower.timed),
        mean_cosine=float(found.mean()),
        min_cosine=float(found.min()),
        golden_cosine=float(golden.min()),
        golden_mean=float(golden.mean()),
        golden_worst=tower.golden.names[int(golden.argmin())],
        recall=recall,
        lost_points=lost,
        moved_in_batch=largest_move(session, tower.timed[-1]),
        size_bytes=len(contents),
        resident_mb=resident_mb(contents, tower.timed[0], tower.options),
    )
    session.close()
    trial = msgspec.structs.replace(trial, refused=recipe.refused or _refusal(tower, trial, budget))
    logger.info("quantize: %s", _describe(trial))
    return Found(trial, contents)


def _recall(tower: Tower, vectors: Vectors) -> tuple[tuple[Recall, Recall] | None, dict[int, float]]:
    """Return recall and lost points by k; none where nothing measures recall."""
    if tower.recalls is None:
        return None, {}
    found = tower.recalls(vectors)
    return found, lost_points(tower.recalls(tower.reference), found)


def _refusal(tower: Tower, trial: Trial, budget: Budget) -> str:
    if trial.moved_in_batch > tower.invariance_bound:
        return "moves with its batch"
    if not budget.allows(trial.lost_points, trial.mean_cosine):
        return "outside the budget"
    if not budget.allows_golden(trial.golden_cosine, trial.golden_mean):
        return "far on golden cases"
    if trial.speedup() < tower.least_speedup:
        return "too slow"
    return ""


def _describe(trial: Trial) -> str:
    """Return one line about a trial."""
    speeds = ", ".join(f"{speed.ratio():.2f}x at {speed.num_items}" for speed in trial.speeds)
    lost = f"recall@1 lost {trial.lost_points[1]:+.2f} points" if trial.lost_points else "no recall"
    verdict = f"; {trial.refused}" if trial.refused else ""
    return (
        f"{trial.tower}, {trial.name()}: {speeds}, cosine {trial.mean_cosine:.5f}, golden {trial.golden_cosine:.4f} "
        f"({trial.golden_mean:.4f} on average), "
        f"{lost}{verdict}"
    )
