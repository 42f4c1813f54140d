"""The comparison as a table: mean and spread over seeds, and the difference from what each recipe changes."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from benchmarks.alignment.recipes import RECIPES
from benchmarks.alignment.scoring import Done
from benchmarks.harness.markdown import table

Figure = Callable[[Done], float]


def markdown(runs: Sequence[Done]) -> str:
    """Return the table in Markdown: recall in points, image to text, and the mean of both ways in unseen styles."""
    by_name: dict[str, list[Done]] = {}
    for run in runs:
        by_name.setdefault(run.recipe, []).append(run)
    figures: dict[str, Figure] = {
        "seen @1": partial(mean_recall, held_out=False),
        "seen @10": partial(mean_recall, held_out=False, at=1),
        "unseen style @1": partial(mean_recall, held_out=True),
        "@10": partial(mean_recall, held_out=True, at=1),
        "guarded @1": _guarded,
        "guarded @10": partial(_guarded, at=1),
        "text to image @1": partial(_guarded, way="text_to_image"),
        "64 of 256, @10 kept": _kept,
    }
    head = ["recipe", "against", "@1, difference a seed", *figures, "s"]
    rows = []
    for recipe in RECIPES:
        if recipe.name not in by_name:
            continue
        own, other = by_name[recipe.name], by_name.get(recipe.against, [])
        cells = [spread([100 * figure(run) for run in own]) for figure in figures.values()]
        seconds = f"{fmean(run.train_s for run in own):.0f}"
        rows.append([recipe.name, recipe.against, _difference(own, other), *cells, seconds])
    return table(head, rows) + "\n"


def _difference(own: Sequence[Done], other: Sequence[Done]) -> str:
    """Return the difference of recall@1 in the unseen style, guarded, in points, by seed."""
    by_seed = {run.seed: run for run in other}
    pairs = [(run, by_seed[run.seed]) for run in own if run.seed in by_seed]
    points = [100 * (_guarded(a) - _guarded(b)) for a, b in pairs]
    return " ".join(f"{each:+.1f}" for each in points)


def mean_recall(run: Done, *, held_out: bool, queries: str = "every", way: str = "image_to_text", at: int = 0) -> float:
    """Return the mean over the styles that were held out, or over the others, of recall at 1 or, `at` 1, at 10."""
    styles = [getattr(each, queries) for each in run.styles if each.is_held_out == held_out]
    return fmean(getattr(style, way)[at] for style in styles)


_guarded = partial(mean_recall, held_out=True, queries="guarded")


def _kept(run: Done) -> float:
    return fmean(each.at_10_by_dim["64"] / each.at_10_by_dim["256"] for each in run.styles)


def spread(points: Sequence[float]) -> str:
    """Return the mean, with the least and the greatest in brackets."""
    return f"{fmean(points):.1f} ({min(points):.1f}-{max(points):.1f})"
