"""The demo's recipe against open_clip's, in the same time: same towers, pairs, split, pixels and scoring.

python -m benchmarks.alignment.against_open_clip --out runs/against_open_clip

The demo's run has its time measured: features of the pairs, training, validation. Then open_clip's recipe gets as much,
twice: as its training script starts (both towers learn) and with its towers locked, on features that are cached as ours
are. Its recipe is its own loss, AdamW with betas (0.9, 0.98), eps 1e-6 and weight decay 0.2, a rate of 5e-4 for
everything, linear projections, a warm-up and half a cosine over the steps that fit, counted by a trial before.
"""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated

import msgspec
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from typer import Option

from benchmarks.alignment.run import CONFIG, RESULTS, file_name, keep, once, train_ours
from benchmarks.alignment.scoring import Done
from benchmarks.alignment.table import mean_recall, spread
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.places import ROOT
from mmalign.checkpoints.checkpoint import Progress, save_best
from mmalign.config import Config, load_config
from mmalign.features import ModelFeatures
from mmalign.losses.infonce import InfoNCE
from mmalign.losses.protocol import EmbeddedBatch
from mmalign.optim import Schedule, plan_steps
from mmalign.run import Run, initial_model, open_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training.inputs import Steps, load_steps, prepare_steps
from mmalign.training.trainer import Trainer

SHIPPED, LOCKED, FULL = "the demo's", "open_clip's, towers locked", "open_clip's, everything learns"
_THEIRS = (
    "model.image_head={kind='linear'}",
    "model.text_head={kind='linear'}",
    "optim={image_tower_lr=5e-4,text_tower_lr=5e-4,projection_lr=5e-4,logit_scale_lr=5e-4,weight_decay=0.2,clip_norm=0,"
    "warmup=0.1}",
    "augment.crop_scale=0.9",
    "augment.color_jitter=0",
    "augment.grayscale=0",
    "augment.blur=0",
)
# What learns in full is held whole for its gradients; 64 pairs a batch fit a machine of 16 GB.
_FULL = (*_THEIRS, "image_tower.frozen=false", "text_tower.frozen=false", "train.batch_size=64")
_TRIAL_STEPS = 4


class OpenClipLoss(InfoNCE):
    """open_clip's loss, which knows one positive of each item: its own pair."""

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch."""
        loss: Tensor = ClipLoss()(batch.image_embeds, batch.text_embeds, self.scale())
        return loss


def train_theirs(config: Config, path: Path, budget_s: float) -> tuple[int, float]:
    """Train open_clip's recipe in about `budget_s` seconds, keep the last weights; return the steps, and no score."""
    run = open_run(config, path, lambda new: None, resume=False)
    splits = merged_splits(load_sources(config.data, config.image, config.text))
    started = time.perf_counter()
    device = torch.device("cpu")
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), device, is_training=True)
    steps = prepare_steps(config, features, splits.train)  # what a locked tower costs is part of the time
    left_s = budget_s - (time.perf_counter() - started)
    num_pairs, batch_size = len(splits.train), min(config.train.batch_size, len(splits.train))
    trial = msgspec.structs.replace(run, model=initial_model(config))
    trial_s = _take_steps(trial, Schedule(num_pairs, batch_size, 1 + _TRIAL_STEPS), steps, _TRIAL_STEPS)
    num_steps = max(1, int(left_s / median(trial_s)))
    schedule = _Steps(num_pairs, batch_size, -(-num_steps * batch_size // num_pairs) + 1, wanted=num_steps)
    _take_steps(run, schedule, steps, num_steps)
    save_best(run.folder.file("best.safetensors"), run.model, Progress(step=num_steps))
    return num_steps, 0.0


class _Steps(Schedule, frozen=True):
    """A schedule that ends after a number of steps, within an epoch if need be."""

    wanted: int = 0

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.wanted


def _take_steps(run: Run, schedule: Schedule, steps: Steps, num_steps: int) -> list[float]:
    """Take the first steps of a schedule and return the seconds of each."""
    run.model.loss = OpenClipLoss(run.config.loss)
    trainer = Trainer(run.model, run.config, schedule)
    for group in trainer.optimizer.param_groups:
        group.update(betas=(0.9, 0.98), eps=1e-6)
    seconds, started = [], time.perf_counter()
    plans = (plan for plan in plan_steps(schedule, run.config.train.seed) if plan.step < num_steps)
    for inputs in load_steps(steps, plans, run.config.train.num_workers):
        trainer.step(inputs)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return seconds


def main(
    out: Annotated[Path, Option(help="where runs go; those that are done are not done again")],
    seed: Annotated[list[int], Option(help="repeat it for several")] = [0, 1, 2],  # noqa: B006
    epochs: Annotated[int | None, Option(help="of the demo's recipe, its own by default; others get its time")] = None,
    results: Annotated[Path, Option(help="folder of the table and the JSON")] = RESULTS,
) -> None:
    out, watch = out.resolve(), Watch(torch.get_num_threads())
    os.chdir(ROOT)  # where the paths in demo.toml start
    runs = [done for each in seed for done in _runs(each, epochs, out)]
    keep(results / "against_open_clip", watch, runs, markdown(runs))


def _runs(seed: int, epochs: int | None, out: Path) -> list[Done]:
    settings = () if epochs is None else (f"train.epochs={epochs}",)
    found = list[Done]()
    for name, given in ((SHIPPED, settings), (LOCKED, _THEIRS), (FULL, _FULL)):
        path = out / f"{file_name(name)}-{seed}"
        cache = out / "cache" / path.name  # of its own: each pays for its features
        config = load_config(CONFIG, [*given, f"train.seed={seed}", f"train.cache_dir={cache}"])
        how = partial(train_theirs, budget_s=found[0].train_s) if found else train_ours
        found.append(once(name, seed, config, path, how))
        print(f"{name}, seed {seed}: {found[-1].num_steps} steps, {found[-1].train_s:.0f} s", flush=True)
    return found


def markdown(runs: Sequence[Done]) -> str:
    """Return recall in points, the mean and the least and greatest of the seeds: unseen concepts, by style and way."""
    rows = []
    for name in (SHIPPED, LOCKED, FULL):
        own = [run for run in runs if run.recipe == name]
        cells = [
            spread([100 * mean_recall(run, held_out=held_out, way=way, at=at) for run in own])
            for held_out in (True, False)
            for way in ("image_to_text", "text_to_image")
            for at in (0, 1)
        ]
        steps, seconds = fmean(run.num_steps for run in own), fmean(run.train_s for run in own)
        rows.append([name, f"{steps:.0f}", f"{seconds:.0f}", *cells])
    columns = [
        f"{style}, {way}@{k}"
        for style in ("unseen style", "seen styles")
        for way in ("image to text ", "text to image ")
        for k in (1, 10)
    ]
    return table(["recipe", "steps", "s", *columns], rows) + "\n"


if __name__ == "__main__":
    run(main)
