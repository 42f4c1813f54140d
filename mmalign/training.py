"""Contrastive training of a dual encoder: read top to bottom.

A run that was killed goes on to the same numbers: all randomness comes from (seed, step), a checkpoint is one rename,
and rows of metrics.csv after the checkpoint are taken anew. One process at a time trains in a folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from mmalign.checkpoint import Progress, save_best
from mmalign.config import Config, differing_keys, load_dumped
from mmalign.data import Pair, Splits
from mmalign.device import training_device
from mmalign.errors import CheckpointError, NonFiniteError, TrainingError
from mmalign.feed import feed_steps
from mmalign.inputs import StepInputs, Steps, load_steps
from mmalign.metrics import MetricsLog, MetricsRow
from mmalign.own_pairs import OWN_PAIRS, keep_own_pairs, unseen, usable_pairs
from mmalign.pairs import identify_pairs, load_splits
from mmalign.progress import track
from mmalign.run import (
    Run,
    RunFolder,
    check_free,
    claim_run,
    create_run,
    load_run,
    with_pooling,
    write_config,
    write_trained_images,
)
from mmalign.run_model import dual_model
from mmalign.schedule import Schedule, plan_steps
from mmalign.towers import Towers
from mmalign.trainer import Trainer
from mmalign.truncation import report_truncated
from mmalign.validate import Validator
from mmalign_runtime.atomic import remove_leftovers, replacing

logger = logging.getLogger(__name__)

# What may differ when a run goes on: where and how fast things are done (steps are drawn from the seed, whatever worker
# prepares them; features are found by what made them), which items are refused, and what only evaluation reads. Not
# train.device: processors sum in other orders. The pairs themselves are compared by what they are.
_MOVES_NO_NUMBER = (
    *("train.num_workers", "train.checkpoint_minutes", "train.cache_dir"),
    *("data.on_error", "data.held_out", "image.limits.", "text.max_characters", "evaluate.templates"),
)
_NUM_NAMED = 5  # pairs named in the message of a loss that is not finite; the file beside the run names all


class TrainResult(msgspec.Struct, frozen=True):
    """Where a run ended: steps done, best validation score (mean recall@1/5/10 of both directions) and its step."""

    num_steps: int
    best_score: float
    best_step: int


def train(config: Config, run_dir: str | Path, *, resume: bool = False) -> TrainResult:
    """Train a dual encoder, or go on with the run in a folder.

    Args:
        config: Everything that decides the run, as `load_config` reads it.
        run_dir: The run's folder, made where it is missing.
        resume: Go on with the run that is there; where there is none, start. The configuration may then differ in what
            moves no number, such as train.num_workers; the run goes on with the one given.

    Returns:
        Where the run ended.

    Raises:
        ConfigError: Parts of the configuration do not go together; like the next three, before anything is written.
        DataError: The data cannot be read.
        WeightsError: Pretrained weights are not here and cannot be fetched.
        TrainingError: There are too few pairs, or the loss is not finite.
        InputError: Another process trains in `run_dir`.
        CheckpointError: `run_dir` holds another run, or cannot be written to.
        ItemError: An image cannot be decoded.

    Example:
        >>> train(load_config("train.toml"), "runs/latest").best_score  # doctest: +SKIP
        0.52
    """
    run_dir = Path(run_dir)
    device = training_device(config.train)
    with claim_run(run_dir):
        _check_folder(config, run_dir, resume=resume)
        return _train(config, run_dir, device, resume=resume)


def _train(config: Config, run_dir: Path, device: torch.device, *, resume: bool) -> TrainResult:
    remove_leftovers(run_dir)  # of a run that was killed while it wrote a checkpoint
    splits = load_splits(config.data, config.image)
    run = _open_run(config, run_dir, resume=resume)
    model = dual_model(run)
    report_truncated((*splits.train, *splits.val), model.text.bound_tokenizer)
    num_pairs, batch_size = len(splits.train), min(config.train.batch_size, len(splits.train))
    schedule = Schedule(num_pairs, batch_size, config.train.epochs, config.optim.accumulate)
    trainer = Trainer(run.model.to(device), config, schedule)
    progress = _start(trainer, run.folder, identify_pairs(splits))
    _record(run, splits)
    write_trained_images(run.folder, splits.train)
    towers = Towers(model, Path(config.train.cache_dir), device, is_training=True)
    steps = feed_steps(run.config, towers, splits.train)
    validator = Validator(run.model, config.evaluate, splits.val, towers)
    progress = _Loop(run, splits.train, trainer, validator).run(steps, progress)
    return TrainResult(progress.step, progress.best_score, progress.best_step)


def _check_folder(config: Config, run_dir: Path, *, resume: bool) -> None:
    if not resume:
        check_free(run_dir)
    elif keys := [key for key in _differences(config, run_dir) if not key.startswith(_MOVES_NO_NUMBER)]:
        raise CheckpointError(
            f"{run_dir} was trained with another configuration ({', '.join(keys)} differ), so it cannot go on to the "
            f"same numbers. Use {run_dir / 'config.toml'}, or choose another --out."
        )


def _differences(config: Config, run_dir: Path) -> list[str]:
    path = run_dir / "config.toml"
    return differing_keys(load_dumped(path), config) if path.is_file() else []


def _open_run(config: Config, run_dir: Path, *, resume: bool) -> Run:
    if resume and (run_dir / "last.safetensors").is_file():
        run = load_run(run_dir, checkpoint=None)
        return msgspec.structs.replace(run, config=with_pooling(config, run.model.text_tower))
    return create_run(config, run_dir)  # also after a kill before the first checkpoint: the same start again


def _record(run: Run, splits: Splits) -> None:
    """Write what is new of a run that goes on: settings that may differ, and own pairs where it has none yet."""
    if changed := _differences(run.config, run.folder.path):
        logger.info("%s: going on with other values of %s", run.folder.path, ", ".join(changed))
        write_config(run.folder, run.config)
    path = run.folder.file(OWN_PAIRS)
    if not path.is_file():
        keep_own_pairs(usable_pairs(unseen(splits), run.config.image, run.config.text), path)


def _start(trainer: Trainer, folder: RunFolder, data_id: str) -> Progress:
    path = folder.file("last.safetensors")
    if not path.is_file():
        return Progress(data_id=data_id)
    progress = trainer.resume(path)
    if progress.data_id != data_id:
        raise CheckpointError(
            f"{folder.path} was trained on other pairs than the sources hold now, so it cannot go on to the same "
            "numbers. Restore the data, or choose another --out."
        )
    logger.info("going on after step %d of %d", progress.step, trainer.schedule.num_steps)
    return progress


class _Loop:
    """Step after step, with validation and checkpoints on the way."""

    def __init__(self, run: Run, pairs: Sequence[Pair], trainer: Trainer, validator: Validator) -> None:
        self._folder = run.folder
        self._config = run.config.train
        self._pairs = pairs
        self._trainer = trainer
        self._schedule = trainer.schedule
        self._validator = validator
        self._saved_step = 0
        self._saved_at_s = time.monotonic()
        self._is_save_due = False

    def run(self, steps: Steps, progress: Progress) -> Progress:
        self._saved_step = progress.step
        num_left = self._schedule.num_steps - progress.step
        plans = plan_steps(self._schedule, self._config.seed, progress.step)
        with MetricsLog(self._folder.path, keep_steps=progress.step) as log:
            for inputs in track(load_steps(steps, plans, self._config.num_workers), "training", num_left):
                row = self._step(inputs)
                progress = msgspec.structs.replace(progress, step=row.step)
                if self._schedule.is_validated(inputs.plan.step, self._config.validate_every):
                    row = msgspec.structs.replace(row, val=self._validator.validate())
                    progress = self._keep_best(row, progress)
                log.write(row)
                self._is_save_due |= row.val is not None
                self._save_when_due(inputs.plan.step, progress)
        return progress

    def _step(self, inputs: StepInputs) -> MetricsRow:
        try:
            return self._trainer.step(inputs)
        except NonFiniteError as error:
            raise TrainingError(self._describe(error)) from error

    def _keep_best(self, row: MetricsRow, progress: Progress) -> Progress:
        assert row.val is not None
        logger.info(
            "epoch %d of %d: loss %.4f, validation score %.4f (image to text @1 %.4f, text to image @1 %.4f)",
            *(row.epoch, self._config.epochs, row.loss),
            *(row.val.score, row.val.image_to_text_at_1, row.val.text_to_image_at_1),
        )
        if row.val.score <= progress.best_score:
            return progress
        progress = msgspec.structs.replace(progress, best_score=row.val.score, best_step=row.step)
        save_best(self._folder.file("best.safetensors"), self._trainer.model, progress)
        return progress

    def _save_when_due(self, step: int, progress: Progress) -> None:
        """Save after a validation and when the last time is long ago; within an update, at its end.

        The clock decides when a checkpoint is written, never what is in it: all of them lead to the same numbers.
        """
        self._is_save_due |= time.monotonic() - self._saved_at_s >= 60 * self._config.checkpoint_minutes
        if self._is_save_due and self._schedule.ends_update(step):
            self._trainer.save(self._folder.file("last.safetensors"), progress)
            self._saved_step, self._saved_at_s, self._is_save_due = progress.step, time.monotonic(), False

    def _describe(self, error: NonFiniteError) -> str:
        origins = [str(self._pairs[row].origin) for row in error.rows]
        path = self._folder.file("bad_batch.txt")
        with replacing(path) as temporary:
            temporary.write_text("\n".join(origins) + "\n", encoding="utf-8")
        named = "; ".join(origins[:_NUM_NAMED]) + ("; ..." if len(origins) > _NUM_NAMED else "")
        return (
            f"{error}. Pairs that may be the cause: {named} (all {len(origins)} in {path}). Repair their images and "
            f"captions and go on with --resume, from step {self._saved_step}; or lower the learning rates in optim and "
            "start anew."
        )
