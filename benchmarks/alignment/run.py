"""Trains each recipe on the demo's data, some seeds each, and compares recall on concepts that none of them saw.

python -m benchmarks.alignment.run --out runs/alignment --teacher demo/bundle

Towers are frozen and their features cached, so a run takes seconds. All runs have the same pairs, steps and order of
data. Validation picks each run's checkpoint; the test split is looked at once. A run that is done is not done again.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
from typer import Argument, Option

from benchmarks.alignment.recipes import RECIPES, Recipe
from benchmarks.alignment.scoring import Done, score_run
from benchmarks.alignment.table import markdown
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import read_result, write_result
from mmalign.config import Config, load_config
from mmalign.training import train

CONFIG = "benchmarks/demo/demo.toml"
RESULTS = ROOT / "benchmarks/alignment/results"
DIMS = (64, 128, 256)


def main(
    out: Annotated[Path, Option(help="where runs go")],
    recipes: Annotated[list[str] | None, Argument(help="names; all but slow ones by default")] = None,
    seeds: int = 3,
    epochs: int = 150,
    teacher: Annotated[str, Option(help="a bundle; recipes that distil are left out without one")] = "",
    results: Annotated[Path, Option(help="folder of the table and the JSON")] = RESULTS,
) -> None:
    out, watch = out.resolve(), Watch(torch.get_num_threads())
    os.chdir(ROOT)  # where the paths in demo.toml start
    named = recipes or [recipe.name for recipe in RECIPES if not recipe.is_slow]
    chosen = [recipe for recipe in RECIPES if recipe.name in named and (teacher or not recipe.needs_teacher)]
    runs = []
    for done in _runs(chosen, seeds, epochs, teacher, out):
        print(f"{done.recipe}, seed {done.seed}: {done.train_s:.0f} s, validation {done.val_score:.3f}", flush=True)
        runs.append(done)
    keep(results / "comparison", watch, runs, markdown(runs))


def keep(path: Path, watch: Watch, runs: Sequence[Done], table: str) -> None:
    watch.write(path.with_suffix(".json"), runs=runs)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


def _runs(recipes: Sequence[Recipe], num_seeds: int, epochs: int, teacher: str, out: Path) -> Iterator[Done]:
    for seed in range(num_seeds):  # all recipes of a seed beside each other: what a machine does meets all alike
        for number, recipe in enumerate(recipes):
            settings = [each.replace("{teacher}", teacher) for each in recipe.settings]
            shared = [f"train.seed={seed}", f"train.epochs={epochs}", f"train.cache_dir={out / 'cache'}"]
            path = out / f"{file_name(recipe.name)}-{seed}-{epochs}"
            if number == seed == 0 and not (path / "done.json").is_file():
                train(load_config(CONFIG, [*shared, "train.epochs=1"]), out / "warm", resume=True)
            yield once(recipe.name, seed, load_config(CONFIG, [*settings, *shared]), path, train_ours)


def file_name(recipe: str) -> str:
    return recipe.replace(" ", "_").replace(",", "")


def train_ours(config: Config, path: Path) -> tuple[int, float]:
    """Train as `mmalign train` does; return the steps and the validation score."""
    result = train(config, path, resume=True)
    return result.num_steps, result.best_score


def once(
    recipe: str, seed: int, config: Config, path: Path, train_to: Callable[[Config, Path], tuple[int, float]]
) -> Done:
    """Train and score a run, or read what it gave before; training says its steps and its validation score."""
    if not (path / "done.json").is_file():
        started = time.perf_counter()
        num_steps, score = train_to(config, path)
        train_s = time.perf_counter() - started
        dims = [dim for dim in DIMS if dim <= config.model.embed_dim]
        write_result(Done(recipe, seed, train_s, num_steps, score, score_run(path, dims)), path / "done.json")
    return read_result(path / "done.json", Done)


if __name__ == "__main__":
    run(main)
