"""Contrastive training of a dual encoder: read top to bottom.

A run that was killed goes on to the same numbers: randomness comes from (seed, step) and a checkpoint is one rename.
Shapes: B batch, D embedding, F features.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mmalign.augment import ImageAugment
from mmalign.checkpoint import Progress, restore, save_best, save_last
from mmalign.config import Config, TrainConfig, dump_config
from mmalign.data import Pair, Splits
from mmalign.errors import CheckpointError, ConfigError, TrainingError
from mmalign.features import FeatureCache, ImageFeatures, TextFeatures, seed_of
from mmalign.inputs import (
    CachedImages,
    CachedTexts,
    ImageInputs,
    LiveImages,
    LiveTexts,
    StepInputs,
    Steps,
    TextInputs,
    load_steps,
    plan_steps,
)
from mmalign.loss import contrastive_loss
from mmalign.metrics import MetricsLog, MetricsRow
from mmalign.model import DualEncoder, is_frozen
from mmalign.optim import build_optimizer, set_learning_rate
from mmalign.pairs import load_splits
from mmalign.progress import track
from mmalign.run import Run, create_run, load_run
from mmalign.validate import Validator

logger = logging.getLogger(__name__)

_NUM_NAMED = 5  # pairs named in the message of a loss that is not finite; the file beside the run names all


class TrainResult(msgspec.Struct, frozen=True):
    """Where a run ended: steps done, best validation score (mean recall@1/5/10 of both directions) and its step."""

    num_steps: int
    best_score: float
    best_step: int


def train(config: Config, run_dir: Path, *, resume: bool = False) -> TrainResult:
    """Train, or go on with, the run in `run_dir`.

    Raises ConfigError, DataError or WeightsError before anything is written where they can be found so early,
    CheckpointError when the folder holds another run, TrainingError when the loss is not finite.
    """
    device = choose_device(config.train)
    splits = load_splits(config.data)
    run = _reopen(config, run_dir) if resume and (run_dir / "config.toml").is_file() else create_run(config, run_dir)
    model = run.model.to(device)
    cache = FeatureCache(Path(config.train.cache_dir))
    image_features = ImageFeatures(model.image_tower, run.preprocessor(), config.image, device)
    text_features = TextFeatures(model.text_tower, run.text_tokenizer(), device)
    images = _image_inputs(run, splits.train, image_features, cache)
    texts = _text_inputs(run, splits.train, text_features, cache)
    validator = Validator(run, splits.val, image_features, text_features, cache)
    steps = Steps(splits.train, images, texts, config.augment.first_caption)
    return _Trainer(run, splits, steps, validator, device).train(resume=resume)


def choose_device(config: TrainConfig) -> torch.device:
    """Return the device to train on. Raises ConfigError when CUDA is asked for, by name or by autocast, and absent."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("train.device is 'cuda', and torch sees no CUDA device. Set train.device = 'cpu' or 'auto'.")
    device = torch.device("cuda" if has_cuda and config.device != "cpu" else "cpu")
    if config.autocast != "off" and device.type != "cuda":
        raise ConfigError(f"train.autocast = {config.autocast!r} needs CUDA, training runs on {device}. Set it to 'off'.")
    return device


def _reopen(config: Config, run_dir: Path) -> Run:
    has_checkpoint = (run_dir / "last.safetensors").is_file()
    if (run_dir / "config.toml").read_text(encoding="utf-8") != dump_config(config):
        raise CheckpointError(
            f"{run_dir} was trained with another configuration than this one, so it cannot go on to the same numbers. "
            f"Use {run_dir / 'config.toml'}, or choose another --out."
        )
    if not has_checkpoint:  # killed before the first checkpoint: start over, from the same seed
        return create_run(config, run_dir)
    return load_run(run_dir, checkpoint=None)


def _image_inputs(run: Run, pairs: Sequence[Pair], features: ImageFeatures, cache: FeatureCache) -> ImageInputs:
    config = run.config
    augment = ImageAugment(config.augment, config.image)
    if not is_frozen(run.model.image_tower):
        return LiveImages(pairs, augment, config.image)
    views = [cache.get(features.key(pairs, "clean"), lambda: features.compute(pairs, "image features").numpy())]
    settings = msgspec.json.encode(config.augment, order="sorted").decode()
    for view in range(1, config.train.num_views + 1):
        compute = _view(features, pairs, augment, view)
        views.append(cache.get(features.key(pairs, f"view {view}", settings), compute))
    return CachedImages(torch.stack(views))  # (V, N, F)


def _view(features: ImageFeatures, pairs: Sequence[Pair], augment: ImageAugment, view: int) -> Callable[[], Tensor]:
    return lambda: features.compute_view(pairs, augment, view, f"image features, augmented view {view}")


def _text_inputs(run: Run, pairs: Sequence[Pair], features: TextFeatures, cache: FeatureCache) -> TextInputs:
    if not is_frozen(run.model.text_tower):
        return LiveTexts(pairs, run.text_tokenizer())
    row_of: dict[str, int] = {}
    rows_of_pair = [[row_of.setdefault(caption, len(row_of)) for caption in pair.captions] for pair in pairs]
    texts = list(row_of)
    key = features.key(texts, run.tokenizer.to_str())
    return CachedTexts(cache.get(key, lambda: features.compute(texts, "text features").numpy()), rows_of_pair)


class _Trainer:
    """The loop and what it holds on to."""

    def __init__(self, run: Run, splits: Splits, steps: Steps, validator: Validator, device: torch.device) -> None:
        self.run = run
        self.config = run.config.train
        self.model: DualEncoder = run.model
        self.pairs = splits.train
        self.steps = steps
        self.validator = validator
        self.device = device
        self.batch_size = min(self.config.batch_size, len(splits.train))
        self.steps_per_epoch = len(splits.train) // self.batch_size
        self.num_steps = self.steps_per_epoch * self.config.epochs
        self.optimizer = build_optimizer(self.model, run.config.optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.config.autocast == "fp16")
        if self.config.compile:
            self.model.image_tower.compile()
            self.model.text_tower.compile()

    def train(self, *, resume: bool) -> TrainResult:
        last_path = self.run.folder.file("last.safetensors")
        progress = restore(last_path, self.model, self.optimizer) if resume and last_path.is_file() else Progress()
        if progress.gradient_scale:
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": progress.gradient_scale})
        plans = list(
            plan_steps(len(self.pairs), self.batch_size, self.config.seed, progress.step, self.num_steps)
        )
        with MetricsLog(self.run.folder.path, keep_steps=progress.step) as log:
            batches = load_steps(self.steps, plans, self.config.num_workers)
            for inputs in track(batches, f"training, {self.num_steps} steps", len(plans)):
                row = self._step(inputs)
                progress = self._after_step(row, progress, log)
        return TrainResult(progress.step, progress.best_score, progress.best_step)

    def _step(self, inputs: StepInputs) -> MetricsRow:
        """Take one optimizer step, or one part of it when gradients are accumulated."""
        plan, optim = inputs.plan, self.run.config.optim
        torch.manual_seed(seed_of(plan.seed, 4))  # dropout of towers that learn
        self._set_modes()
        set_learning_rate(self.optimizer, plan.step, self.num_steps, optim)
        with self._autocast():
            image_embeds, text_embeds = self._embed(inputs)  # (B, D) each
            scale = self.model.scale()
            loss = contrastive_loss(image_embeds, text_embeds, scale, inputs.concept_ids.to(self.device))
        if not math.isfinite(loss.item()):
            raise TrainingError(self._describe_bad_batch(inputs, loss.item()))
        self.scaler.scale(loss / optim.accumulate).backward()
        gradient_norm = math.nan
        if (plan.step + 1) % optim.accumulate == 0 or plan.step + 1 == self.num_steps:
            gradient_norm = self._update()
        epoch = plan.step // self.steps_per_epoch
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return MetricsRow(
            step=plan.step + 1,
            epoch=epoch + 1,
            loss=loss.item(),
            logit_scale=scale.item(),
            learning_rate=rate,
            gradient_norm=gradient_norm,
        )

    def _embed(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        image = inputs.image.to(self.device)
        text = [tensor.to(self.device) for tensor in inputs.text]
        has_image_features, has_text_features = image.ndim == 2, len(text) == 1
        image_embeds = self.model.project_image(image) if has_image_features else self.model.encode_image(image)
        text_embeds = self.model.project_text(text[0]) if has_text_features else self.model.encode_text(*text)
        return image_embeds, text_embeds

    def _update(self) -> float:
        clip_norm = self.run.config.optim.clip_norm
        self.scaler.unscale_(self.optimizer)
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learning, clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():  # the bound holds for the parameter itself, so that it can come back down
            self.model.logit_scale.clamp_(max=math.log(self.model.config.max_logit_scale))
        return float(norm)

    def _after_step(self, row: MetricsRow, progress: Progress, log: MetricsLog) -> Progress:
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 0.0
        progress = msgspec.structs.replace(progress, step=row.step, gradient_scale=scale)
        is_epoch_end = row.step % self.steps_per_epoch == 0
        is_last = row.step == self.num_steps
        is_update = row.step % self.run.config.optim.accumulate == 0 or is_last
        if is_last or (is_epoch_end and row.epoch % self.config.validate_every == 0):
            row = msgspec.structs.replace(row, val=self.validator.validate())
            progress = self._keep_best(row, progress)
        log.write(row)
        every = self.config.checkpoint_every
        if is_update and (row.val is not None or (every and row.step % every == 0)):
            save_last(self.run.folder.file("last.safetensors"), self.model, self.optimizer, progress)
        return progress

    def _keep_best(self, row: MetricsRow, progress: Progress) -> Progress:
        assert row.val is not None
        if row.val.score <= progress.best_score:
            return progress
        progress = msgspec.structs.replace(progress, best_score=row.val.score, best_step=row.step)
        save_best(self.run.folder.file("best.safetensors"), self.model, progress)
        return progress

    def _set_modes(self) -> None:
        self.model.train()
        for tower in (self.model.image_tower, self.model.text_tower):
            if is_frozen(tower):
                tower.eval()

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.config.autocast == "off":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.autocast == "bf16" else torch.float16)

    def _describe_bad_batch(self, inputs: StepInputs, loss: float) -> str:
        origins = [str(self.pairs[row].origin) for row in inputs.plan.rows]
        path = self.run.folder.file("bad_batch.txt")
        path.write_text("\n".join(origins) + "\n", encoding="utf-8")
        return (
            f"the loss is {loss} at step {inputs.plan.step + 1}, after a batch of {len(origins)} pairs: "
            f"{'; '.join(origins[:_NUM_NAMED])}, ... (all in {path}). Look at these, or lower the learning rates; the "
            "last checkpoint is whole and --resume goes on from it."
        )
