"""Trains each recipe on the demo's data, some seeds each, and compares recall on concepts that none of them saw.

python -m benchmarks.alignment.run --out runs/alignment --teacher demo/bundle

Towers are frozen and their features cached, so a run takes seconds. All runs have the same pairs, steps and order of
data. Validation picks each run's checkpoint; the test split is looked at once. A run that is done is not done again.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from typer import Argument, Option

from benchmarks.alignment.recipes import RECIPES, Recipe
from benchmarks.alignment.scoring import Done, score_run
from benchmarks.alignment.table import markdown
from benchmarks.harness.command import run
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import read_result, write_result
from mmalign.config import load_config
from mmalign.training import train

CONFIG = "benchmarks/demo/demo.toml"
RESULTS = ROOT / "benchmarks/alignment/results"
DIMS = (64, 128, 256)


class Comparison(msgspec.Struct, frozen=True):
    """All runs, with the machine and the command."""

    environment: Environment
    runs: tuple[Done, ...]


def main(
    out: Annotated[Path, Option(help="where runs go")],
    recipes: Annotated[list[str] | None, Argument(help="names; all but slow ones by default")] = None,
    seeds: int = 3,
    epochs: int = 150,
    teacher: Annotated[str, Option(help="a bundle; recipes that distil are left out without one")] = "",
    results: Annotated[Path, Option(help="folder of the table and the JSON")] = RESULTS,
) -> None:
    """Train, score, and write the table and the JSON."""
    out, watch = out.resolve(), Watch(torch.get_num_threads())
    os.chdir(ROOT)  # where the paths in demo.toml start
    named = recipes or [recipe.name for recipe in RECIPES if not recipe.is_slow]
    chosen = [recipe for recipe in RECIPES if recipe.name in named and (teacher or not recipe.needs_teacher)]
    runs = []
    for done in _runs(chosen, seeds, epochs, teacher, out):
        print(f"{done.recipe}, seed {done.seed}: {done.train_s:.0f} s, validation {done.val_score:.3f}", flush=True)
        runs.append(done)
    keep(results / "comparison", Comparison(watch.card(), tuple(runs)), markdown(runs))


def keep(path: Path, found: Comparison, table: str) -> None:
    """Write the JSON and the table beside it, and print the table."""
    write_result(found, path.with_suffix(".json"))
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


def _runs(recipes: Sequence[Recipe], num_seeds: int, epochs: int, teacher: str, out: Path) -> Iterator[Done]:
    for seed in range(num_seeds):  # all recipes of a seed beside each other: what a machine does meets all alike
        for number, recipe in enumerate(recipes):
            path = out / f"{recipe.name.replace(' ', '_').replace(',', '')}-{seed}-{epochs}"
            if not (path / "done.json").is_file():
                settings = [each.replace("{teacher}", teacher) for each in recipe.settings]
                shared = [f"train.seed={seed}", f"train.epochs={epochs}", f"train.cache_dir={out / 'cache'}"]
                if number == seed == 0:
                    train(load_config(CONFIG, [*shared, "train.epochs=1"]), out / "warm", resume=True)
                write_result(_run(recipe, seed, [*settings, *shared], path), path / "done.json")
            yield read_result(path / "done.json", Done)


def _run(recipe: Recipe, seed: int, settings: Sequence[str], path: Path) -> Done:
    config = load_config(CONFIG, settings)
    started = time.perf_counter()
    result = train(config, path, resume=True)
    train_s = time.perf_counter() - started
    dims = [dim for dim in DIMS if dim <= config.model.embed_dim]
    return Done(recipe.name, seed, train_s, result.num_steps, result.best_score, score_run(path, dims))


if __name__ == "__main__":
    run(main)
