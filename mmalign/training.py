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
from mmalign.closed_form import start_from_linear_map
from mmalign.config import Config
from mmalign.data import Pair, Splits
from mmalign.device import training_device
from mmalign.embedded_pairs import EmbeddedPairs
from mmalign.errors import CheckpointError, NonFiniteError, TrainingError
from mmalign.features import ModelFeatures
from mmalign.imported_specs import with_imported
from mmalign.inputs import Steps, load_steps, prepare_steps
from mmalign.metrics import MetricsLog, MetricsRow, Validation, Validator
from mmalign.mining import Miner
from mmalign.optim import Schedule, plan_steps
from mmalign.own_pairs import OWN_PAIRS, keep_own_pairs, unseen, usable_pairs
from mmalign.pairs import identify_pairs, load_splits
from mmalign.progress import track
from mmalign.run import Run, RunFolder, check_start, claim_run, open_run, record_changes, write_trained_images
from mmalign.run_model import dual_model
from mmalign.trainer import Trainer
from mmalign.truncation import report_truncated
from mmalign.writing import named_writes
from mmalign_runtime.atomic import remove_leftovers, replacing

logger = logging.getLogger(__name__)

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
    run_dir, config = Path(run_dir), with_imported(config)
    device = training_device(config.train)
    with claim_run(run_dir):
        check_start(config, run_dir, resume=resume)
        return _train(config, run_dir, device, resume=resume)


def _train(config: Config, run_dir: Path, device: torch.device, *, resume: bool) -> TrainResult:
    remove_leftovers(run_dir)  # of a run that was killed while it wrote a checkpoint
    splits = load_splits(config.data, config.image)  # rows of the sources to pairs, each concept on one side
    run = open_run(config, run_dir, resume=resume)  # towers, heads, loss and tokenizer
    model = dual_model(run)
    report_truncated((*splits.train, *splits.val), model.text.bound_tokenizer)
    batch_size = min(config.train.batch_size, len(splits.train))
    schedule = Schedule(len(splits.train), batch_size, config.train.epochs, config.optim.accumulate)
    trainer = Trainer(run.model.to(device), config, schedule)
    progress = _restore(trainer, run.folder, identify_pairs(splits))
    _keep_data(run, splits)
    features = ModelFeatures(model, Path(config.train.cache_dir), device, is_training=True)
    if config.model.start == "linear_map" and progress.step == 0:
        start_from_linear_map(run.model, features, splits, config.evaluate)
    steps = prepare_steps(config, features, splits.train)  # pairs to features, or to pixels and token ids
    validator = Validator(run.model, config.evaluate, splits.val, features)
    checkpoints = _Checkpoints(run, trainer, progress)
    plans = plan_steps(schedule, config.train.seed, progress.step)
    windows = _mined(run, trainer, features, splits, steps).windows(plans) if config.mining.share else [plans]
    with MetricsLog(run_dir, keep_steps=progress.step) as log:
        prepared = (inputs for window in windows for inputs in load_steps(steps, window, config.train.num_workers))
        for inputs in track(prepared, "training", schedule.num_steps - progress.step):
            try:
                row = trainer.step(inputs)  # inputs to vectors to a loss to other weights
            except NonFiniteError as error:
                raise TrainingError(_describe(error, run.folder, splits.train, checkpoints.saved_step)) from error
            if schedule.is_validated(inputs.plan.step, config.train.validate_every):
                row = msgspec.structs.replace(row, val=validator.validate())
            log.write(row)
            checkpoints.keep(row)
    return TrainResult(checkpoints.progress.step, checkpoints.progress.best_score, checkpoints.progress.best_step)


def _restore(trainer: Trainer, folder: RunFolder, data_id: str) -> Progress:
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


def _mined(run: Run, trainer: Trainer, features: ModelFeatures, splits: Splits, steps: Steps) -> Miner:
    """Return what puts hard negatives into batches, found by the model and the first caption of each pair."""
    first_captions = [pair.captions[0] for pair in splits.train]
    pairs = EmbeddedPairs(run.model, features, splits.train, first_captions, "training")
    return Miner(run.config.mining, trainer.schedule, pairs, steps.keys, trainer.kept)


def _keep_data(run: Run, splits: Splits) -> None:
    """Write what the folder keeps of the data, and settings of a run that goes on that differ."""
    record_changes(run)
    path = run.folder.file(OWN_PAIRS)
    if not path.is_file():
        keep_own_pairs(usable_pairs(unseen(splits), run.config.image, run.config.text), path)
    write_trained_images(run.folder, splits.train)


class _Checkpoints:
    """Where training stands, and when it is saved: the best model, and the last step to go on from."""

    def __init__(self, run: Run, trainer: Trainer, progress: Progress) -> None:
        self.progress = progress
        self.saved_step = progress.step
        self._folder = run.folder
        self._config = run.config.train
        self._trainer = trainer
        self._saved_at_s = time.monotonic()
        self._is_due = False

    def keep(self, row: MetricsRow) -> None:
        """Take note of a step that was done, and save after a validation and when the last time is long ago.

        Within an update, at its end. The clock decides when a checkpoint is written, never what is in it: all of them
        lead to the same numbers.
        """
        self.progress = msgspec.structs.replace(self.progress, step=row.step)
        if row.val is not None:
            self._keep_best(row, row.val)
        minutes = (time.monotonic() - self._saved_at_s) / 60
        self._is_due |= row.val is not None or minutes >= self._config.checkpoint_minutes
        if self._is_due and self._trainer.schedule.ends_update(row.step - 1):
            self._trainer.save(self._folder.file("last.safetensors"), self.progress)
            self.saved_step, self._saved_at_s, self._is_due = row.step, time.monotonic(), False

    def _keep_best(self, row: MetricsRow, val: Validation) -> None:
        logger.info(
            "epoch %d of %d: loss %.4f, validation score %.4f (image to text @1 %.4f, text to image @1 %.4f)",
            *(row.epoch, self._config.epochs, row.loss),
            *(val.score, val.image_to_text_at_1, val.text_to_image_at_1),
        )
        if val.score > self.progress.best_score:
            self.progress = msgspec.structs.replace(self.progress, best_score=val.score, best_step=row.step)
            save_best(self._folder.file("best.safetensors"), self._trainer.model, self.progress)


def _describe(error: NonFiniteError, folder: RunFolder, pairs: Sequence[Pair], saved_step: int) -> str:
    origins = [str(pairs[row].origin) for row in error.rows]
    path = folder.file("bad_batch.txt")
    with named_writes(path), replacing(path) as temporary:
        temporary.write_text("\n".join(origins) + "\n", encoding="utf-8")
    named = "; ".join(origins[:_NUM_NAMED]) + ("; ..." if len(origins) > _NUM_NAMED else "")
    return (
        f"{error}. Pairs that may be the cause: {named} (all {len(origins)} in {path}). Repair their images and "
        f"captions and go on with --resume, from step {saved_step}; or lower the learning rates in optim and "
        "start anew."
    )
