"""One step of training: embed a batch, take its loss, and update what learns when its turn has come.

Everything random about step n is seeded from the plan of step n, so that a step is the same whether or not the process
was killed before it. Of several processes each runs towers that learn over its share of the batch. Shapes: B batch, F
features, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import msgspec
import torch
from torch import Tensor, nn

from mmalign.checkpoints.averaging import Averaging
from mmalign.checkpoints.checkpoint import Progress, restore, save_last
from mmalign.config import Config
from mmalign.device import exact_float32
from mmalign.distributed import ALONE, World, add_gradients, gather_rows
from mmalign.errors import NonFiniteError
from mmalign.features.token_states import PoolOfTower
from mmalign.losses.protocol import EmbeddedBatch, TeacherVectors
from mmalign.losses.term import training_loss
from mmalign.model import DualEncoder
from mmalign.model.attention import attention_loss
from mmalign.model.batch_statistics import statistics_in_order
from mmalign.model.chunks import Sharing, run_in_chunks
from mmalign.optim import Schedule, StepPlan, build_optimizer, set_learning_rate
from mmalign.seeds import Stream, seed_of
from mmalign.towers.additions import is_still_below_pool
from mmalign.towers.depth import Modes, Unfreezing
from mmalign.towers.regions import TowerWithRegions, image_tower_with_regions
from mmalign.towers.text import TextTower
from mmalign.training.inputs import StepInputs
from mmalign.training.metrics import MetricsRow
from mmalign.training.sides import Features, SideInputs, TokenInputs

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A model with its optimizer, the same in every process of a run."""

    def __init__(self, model: DualEncoder, config: Config, schedule: Schedule, world: World = ALONE) -> None:
        self.model = model
        self.config = config
        self.schedule = schedule
        self.device = model.device
        self.optimizer = build_optimizer(model, config.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.autocast == "fp16")
        self._with_regions: TowerWithRegions | None = None
        if model.attention is not None:
            self._with_regions = TowerWithRegions(image_tower_with_regions(model.image_tower))
        self._rows_of_update: list[int] = []
        self._world = world
        self._sharing = Sharing(config.train.chunk_size, world.rank, world.size)
        self.kept: dict[str, Tensor] = {}  # what checkpoints hold beside model and optimizer, by name
        self.averaging = Averaging(config.average, model, schedule, self.kept)
        learning = [tower for tower in (model.image_tower, model.text_tower) if not is_still_below_pool(tower)]
        self._unfreezing = Unfreezing(learning, config.optim.unfreeze_every)
        self._modes = Modes(model, (model.image_tower, model.text_tower))
        if config.train.compile:
            for tower in (self._with_regions or model.image_tower, model.text_tower):
                if not is_still_below_pool(tower):
                    tower.compile()

    def step(self, inputs: StepInputs) -> MetricsRow:
        """Take one step. After a NonFiniteError the trainer is of no more use; what it saved before is whole."""
        with exact_float32():
            return self._step(inputs)

    def _step(self, inputs: StepInputs) -> MetricsRow:
        plan = inputs.plan
        waiting = self._unfreezing.waiting(self.schedule.epoch_of(plan.step))
        self._modes.apply(waiting)
        self.model.loss.schedule_scale(plan.step / max(1, self.schedule.num_steps - 1))
        set_learning_rate(self.optimizer, plan.step, self.schedule.num_steps, self.config.optim)
        with self._autocast():
            batches = self._embed(inputs)
            losses = [training_loss(self.model.loss, self.config.terms, batch) for batch in batches]
            loss = torch.stack(losses).mean()
            if self.model.attention is not None:
                loss = loss + attention_loss(self.model.attention, batches[0], self.config.loss.chunk_size)
        if not math.isfinite(loss.item()):
            vectors = [side for batch in batches for side in (batch.image_embeds, batch.text_embeds)]
            rows = _not_finite(plan.rows, *vectors) or plan.rows
            raise NonFiniteError("the loss", plan.step + 1, rows)
        self._rows_of_update += plan.rows
        similarity = self.model.loss.similarity()  # as this step had it
        torch.autograd.backward(self.scaler.scale(loss / len(self.schedule.update_window(plan.step))))
        for parameter in waiting:
            parameter.grad = None
        return MetricsRow(
            step=plan.step + 1,
            epoch=self.schedule.epoch_of(plan.step) + 1,
            loss=loss.item(),
            logit_scale=similarity.scale,
            logit_bias=similarity.bias if similarity.kind == "sigmoid" else None,
            learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
            gradient_norm=self._update(plan.step) if self.schedule.ends_update(plan.step) else None,
        )

    def save(self, path: Path, progress: Progress) -> None:
        """Write a checkpoint to go on from; valid between two updates."""
        scaler = self.scaler.state_dict()  # empty when it is not enabled
        progress = msgspec.structs.replace(
            progress, gradient_scale=scaler.get("scale", 0.0), gradient_growth=scaler.get("_growth_tracker", 0)
        )
        save_last(path, self.model, self.optimizer, progress, self.kept)

    def resume(self, path: Path) -> Progress:
        """Load a checkpoint. Raises CheckpointError."""
        progress = restore(path, self.model, self.optimizer, self.kept)
        if self.scaler.is_enabled():
            state = {"scale": progress.gradient_scale, "_growth_tracker": progress.gradient_growth}
            self.scaler.load_state_dict(self.scaler.state_dict() | state)
        return progress

    def _embed(self, inputs: StepInputs) -> list[EmbeddedBatch]:
        """Run the towers, in chunks where asked for, and the heads over all of the batch: a batch for each member."""
        image, regions = self._image_features(inputs.image, inputs.plan, Stream.IMAGE_DROPOUT)  # (B, F), (B, N, R)
        text = self._text_features(inputs.text, inputs.plan)  # (B, F)
        view = self._image_features(inputs.view, inputs.plan, Stream.VIEW_DROPOUT)[0] if inputs.view else None  # (B, F)
        torch.manual_seed(seed_of(inputs.plan.seed, Stream.DROPOUT))
        image_embeds, text_embeds = self.model.image_members(image), self.model.text_members(text)  # M of (B, D)
        view_embeds = self.model.image_members(view) if view is not None else [None] * len(image_embeds)
        if self.model.joint_space is not None:
            self.model.joint_space.gather(inputs.plan.step, image_embeds, text_embeds)
        keys = inputs.keys.to(self.device)
        teacher = _moved(inputs.teacher, self.device) if inputs.teacher else None
        return [
            EmbeddedBatch(image_embed, text_embed, keys, text, view_embed, teacher, regions)
            for image_embed, text_embed, view_embed in zip(image_embeds, text_embeds, view_embeds, strict=True)
        ]

    def _image_features(self, inputs: SideInputs, plan: StepPlan, stream: Stream) -> tuple[Tensor, Tensor | None]:
        """Return the features (B, F), and the regions (B, N, R) where there is an attention."""
        if isinstance(inputs, Features):
            return inputs.values.to(self.device), None if inputs.regions is None else inputs.regions.to(self.device)
        (pixel_values,) = (tensor.to(self.device) for tensor in inputs.tensors)
        if self.config.train.autocast != "off":
            # In half precision convolutions are made for it: 1.6 times as fast in bfloat16 on a CPU with AMX.
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        output = self._run(self._with_regions or self.model.image_tower, (pixel_values,), plan, stream)
        return self._with_regions.split(output) if self._with_regions else (output, None)

    def _text_features(self, inputs: SideInputs, plan: StepPlan) -> Tensor:
        if isinstance(inputs, Features):
            return inputs.values.to(self.device)  # (B, F)
        tensors = tuple(tensor.to(self.device) for tensor in inputs.tensors)
        tower: nn.Module = self.model.text_tower
        if isinstance(inputs, TokenInputs):
            tower = PoolOfTower(cast("TextTower", tower))
        return self._run(tower, tensors, plan, Stream.TEXT_DROPOUT)

    def _run(self, tower: nn.Module, tensors: tuple[Tensor, ...], plan: StepPlan, stream: Stream) -> Tensor:
        """Return the features (B, F) of the whole batch for this process's share of it, (b, ...)."""
        sharing, num_rows = self._sharing, len(plan.rows)
        chunks_of_rank = [len(sharing.own(num_rows, rank)) for rank in range(self._world.size)]
        with statistics_in_order(tower, self._world, chunks_of_rank):
            share = run_in_chunks(tower, tensors, sharing.own(num_rows), seed_of(plan.seed, stream))  # (b, F)
        return gather_rows(self._world, share, sharing.rows(num_rows), num_rows)

    def _update(self, step: int) -> float:
        """Change the weights by the gradients gathered, and return the norm of these before clipping."""
        rows, self._rows_of_update = self._rows_of_update, []
        model = self.model
        add_gradients(
            self._world,
            of_shares=[*model.image_tower.parameters(), *model.text_tower.parameters()],
            of_wholes=[
                *model.image_projection.parameters(),
                *model.text_projection.parameters(),
                *model.loss.parameters(),
                *(model.attention.parameters() if model.attention is not None else ()),
            ],
        )
        self.scaler.unscale_(self.optimizer)
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learning, self.config.optim.clip_norm or math.inf)
        # fp16 overflows now and then: its scaler leaves such an update out, and scales the next ones down.
        if not self.scaler.is_enabled() and not math.isfinite(norm.item()):
            raise NonFiniteError("the gradient", step + 1, rows)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not math.isfinite(torch.nn.utils.get_total_norm(learning).item()):
            raise NonFiniteError("the norm of the weights after the update", step + 1, rows)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.loss.bound_scale()
        if self.model.attention is not None:
            self.model.attention.bound()
        self.averaging.take(step)
        return norm.item()

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.config.train.autocast == "off":
            return nullcontext()
        return torch.autocast(self.device.type, _AUTOCAST[self.config.train.autocast])


def _moved(teacher: TeacherVectors, device: torch.device) -> TeacherVectors:
    return TeacherVectors(teacher.image.to(device), teacher.text.to(device), teacher.scale)


def _not_finite(rows: Sequence[int], *embeds: Tensor) -> list[int]:
    """Return the rows that have a vector (B, D) that is not finite."""
    is_finite = torch.stack([vectors.isfinite().all(dim=1) for vectors in embeds]).all(dim=0)  # (B,)
    return [row for row, finite in zip(rows, is_finite.tolist(), strict=True) if not finite]
