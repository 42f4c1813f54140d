"""Contrastive training of a dual encoder: read top to bottom.

A run that was killed goes on to the same numbers: all randomness comes from (seed, step), a checkpoint is one rename,
and rows of metrics.csv after the checkpoint are taken anew. One run at a time trains in a folder. Several processes may
be one run: all take every step, and the first one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch

from mmalign.checkpoints.checkpoint import Progress, learned_state
from mmalign.config import Config, dump_config
from mmalign.data import Splits
from mmalign.device import training_device
from mmalign.distributed import World, check_agreement, joined_world
from mmalign.errors import CheckpointError, NonFiniteError, TrainingError
from mmalign.features import ModelFeatures
from mmalign.features.embedded_pairs import EmbeddedPairs
from mmalign.features.near_synonyms import without_near_synonyms
from mmalign.figures.prefixes import check_dims
from mmalign.figures.truncation import report_truncated
from mmalign.memory import within_memory
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule, plan_steps
from mmalign.progress import Pace, track
from mmalign.run import Run, RunFolder, check_start, claim_run, join_run, open_run
from mmalign.run.imported_specs import with_imported
from mmalign.run.model import dual_model
from mmalign.run.pairs import check_enough, identify_pairs, load_sources, merged_splits
from mmalign.training.checks import check_new_run, check_settings
from mmalign.training.closed_form import start_from_linear_map
from mmalign.training.inputs import StepInputs, Steps, load_steps, prepare_steps
from mmalign.training.metrics import Validator
from mmalign.training.mining import Miner
from mmalign.training.records import open_records
from mmalign.training.shard_steps import open_stream
from mmalign.training.teacher import identify_teacher
from mmalign.training.trainer import Trainer
from mmalign_runtime.atomic import remove_leftovers

logger = logging.getLogger(__name__)

# The keys whose arrays grow with them.
_SMALLER = (
    "Choose a smaller train.batch_size, or a train.chunk_size; or a smaller image.size, text.context_length, "
    "model.embed_dim, hidden_dim of a head or rank of lora."
)


class TrainResult(msgspec.Struct, frozen=True):
    """Where a run ended: steps done, best validation score (mean recall@1/5/10 of both directions) and its step."""

    num_steps: int
    best_score: float
    best_step: int


@within_memory("the run", _SMALLER, TrainingError)
def train(config: Config, run_dir: str | Path, *, resume: bool = False) -> TrainResult:
    """Train a dual encoder, or go on with the run in a folder.

    Args:
        config: Everything that decides the run, as `load_config` reads it.
        run_dir: The run's folder, made where it is missing.
        resume: Go on with the run that is there; where there is none, start. The configuration may then differ in what
            moves no number, such as train.num_workers; the run goes on with the one given.

    Called by every process that `torchrun` starts, with the same arguments, it is one run of them all, which the first
    one writes; `train.batch_size` is that of the whole run.

    Returns:
        Where the run ended.

    Raises:
        ConfigError: Parts of the configuration do not go together; like the next four, before anything is written.
        DataError: The data cannot be read.
        WeightsError: Pretrained weights are not here and cannot be fetched.
        BundleError: The teacher of a distillation cannot be used.
        TrainingError: There are too few pairs, the loss is not finite, the memory does not hold what the configuration
            asks for, or another process of this run has ended.
        InputError: Another process trains in `run_dir`.
        CheckpointError: `run_dir` holds another run, or cannot be written to.
        ItemError: An image cannot be decoded.

    Example:
        >>> train(load_config("train.toml"), "runs/latest").best_score  # doctest: +SKIP
        0.52
    """
    run_dir, config = Path(run_dir), with_imported(config)
    device = training_device(config.train)
    with joined_world(device) as world:
        if not world.is_first:
            return _train(config, run_dir, device, world, resume=resume)
        with claim_run(run_dir):
            check_start(config, run_dir, resume=resume)
            check_dims(config.evaluate.dims, config.model.embed_dim)
            if not (run_dir / "last.safetensors").is_file():  # a run that is there goes on with what it began with
                check_settings(config)
            remove_leftovers(run_dir)  # of a run that was killed while it wrote a checkpoint
            return _train(config, run_dir, device, world, resume=resume)


def _train(config: Config, run_dir: Path, device: torch.device, world: World, *, resume: bool) -> TrainResult:
    stream = open_stream(config)  # shards that are read as training goes
    sources = load_sources(config.data, config.image, config.text)  # of the others: concepts on one side
    splits = merged_splits(sources) if stream is None else msgspec.structs.replace(merged_splits(sources), train=())
    check_enough(splits, is_streamed=stream is not None)

    def check(new: Run) -> None:
        check_new_run(new, sources, splits, device, world, num_streamed=stream.num_pairs if stream else None)
        if stream is not None:
            stream.check(world, sources)

    with world.first_then_others():
        # towers, heads, loss and tokenizer
        run = open_run(config, run_dir, check, resume=resume) if world.is_first else join_run(config, run_dir)
    run.model.to(device)
    model = dual_model(run)
    features = ModelFeatures(model, Path(config.train.cache_dir), device, is_training=True, world=world)
    splits = without_near_synonyms(splits, sources, config.data.split.max_caption_similarity, features.texts)
    data_id = identify_pairs(splits) if stream is None else stream.identify(splits)
    check_agreement(world, dump_config(config) + data_id)
    schedule = _schedule(config, len(splits.train) if stream is None else stream.num_pairs)
    Sharing(config.train.chunk_size, world.rank, world.size).check(schedule.batch_size, run.model)
    report_truncated((*splits.train, *splits.val), model.text.bound_tokenizer)
    trainer = Trainer(run.model, config, schedule, world)
    progress = _restore(trainer, run.folder, Progress(data_id=data_id, teacher_id=identify_teacher(config)))
    if config.model.start == "linear_map" and progress.step == 0:
        start_from_linear_map(run.model, features, splits, config.evaluate)
    world.take_from_first(list(learned_state(run.model).values()))
    if stream is None:
        prepared = _inputs(run, trainer, features, splits, progress.step)
    else:
        prepared = stream.inputs(schedule, model.text.bound_tokenizer, progress.step, trainer.kept, world)
    validator = Validator(run.model, config.evaluate, splits.val, features)
    pace = Pace()
    with open_records(run, trainer, progress, splits, world) as records:
        for inputs in track(pace.waiting(prepared), "training", schedule.num_steps - progress.step):
            try:
                with pace.stepping(len(inputs.plan.rows)):
                    row = trainer.step(inputs)  # inputs to vectors to a loss to other weights
            except NonFiniteError as error:
                with world.first_then_others():  # it tells, and ends them all
                    origin = stream.origin if stream else lambda row: str(splits.train[row].origin)
                    raise TrainingError(records.describe(error, origin)) from error
            if schedule.is_validated(inputs.plan.step, config.train.validate_every):
                with trainer.averaging.applied():
                    row = msgspec.structs.replace(row, val=validator.validate())
                pace.tell()
            records.keep(row)
    return TrainResult(records.progress.step, records.progress.best_score, records.progress.best_step)


def _schedule(config: Config, num_pairs: int) -> Schedule:
    return Schedule(num_pairs, min(config.train.batch_size, num_pairs), config.train.epochs, config.optim.accumulate)


def _inputs(
    run: Run, trainer: Trainer, features: ModelFeatures, splits: Splits, first_step: int
) -> Iterator[StepInputs]:
    """Return the inputs of each step: pairs to features, or to pixels and token ids."""
    config = run.config
    steps = prepare_steps(config, features, splits.train)
    plans = plan_steps(trainer.schedule, config.train.seed, first_step)
    windows = _mined(run, trainer, features, splits, steps).windows(plans) if config.mining.share else [plans]
    return (inputs for window in windows for inputs in load_steps(steps, window, config.train.num_workers))


def _restore(trainer: Trainer, folder: RunFolder, start: Progress) -> Progress:
    path = folder.file("last.safetensors")
    if not path.is_file():
        return start
    progress = trainer.resume(path)
    if progress.data_id != start.data_id:
        raise CheckpointError(
            f"{folder.path} was trained on other pairs than the sources hold now, so it cannot go on to the same "
            "numbers. Restore the data, or choose another --out."
        )
    if progress.teacher_id not in ("", start.teacher_id):  # versions before this one wrote none
        raise CheckpointError(
            f"{folder.path} was taught by the space {progress.teacher_id}, and the teacher's bundle is now of "
            f"{start.teacher_id}, so it cannot go on to the same numbers. Restore the bundle, or choose another --out."
        )
    logger.info("going on after step %d of %d", progress.step, trainer.schedule.num_steps)
    return progress


def _mined(run: Run, trainer: Trainer, features: ModelFeatures, splits: Splits, steps: Steps) -> Miner:
    """Return what puts hard negatives into batches, found by the model and the first caption of each pair."""
    first_captions = [pair.captions[0] for pair in splits.train]
    pairs = EmbeddedPairs(run.model, features, splits.train, first_captions, "training")
    return Miner(run.config.mining, trainer.schedule, pairs, steps.keys, trainer.kept)
