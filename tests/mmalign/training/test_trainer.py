from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.checkpoints.checkpoint import Progress
from mmalign.config import Config
from mmalign.errors import NonFiniteError
from mmalign.losses.infonce import contrastive_loss
from mmalign.model import DualEncoder, freeze
from mmalign.optim import Schedule, plan_steps
from mmalign.training.inputs import Features, StepInputs
from mmalign.training.trainer import Trainer
from tests.mmalign.run_features import tensors_of
from tests.tolerances import CLIPPED_NORM, GRADIENT_NORM

MakeModel = Callable[..., DualEncoder]
MakeConfig = Callable[..., Config]


@pytest.fixture
def make_trainer(make_model: MakeModel, make_config: MakeConfig) -> Callable[..., Trainer]:
    """Return a function that makes a trainer of heads over features, 5 wide for images and 6 for texts."""

    def make(settings: dict[str, object] | None = None) -> Trainer:
        model, config = make_model(), make_config(settings)
        freeze(model.image_tower)
        freeze(model.text_tower)
        return Trainer(model, config, Schedule(12, 4, epochs=3, accumulate=config.optim.accumulate))

    return make


def feature_steps(num_steps: int) -> list[StepInputs]:
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(12, 5, generator=generator), torch.randn(12, 6, generator=generator)
    plans = list(plan_steps(Schedule(12, 4, epochs=3), seed=0))[:num_steps]
    sides = [(Features(images[list(plan.rows)]), Features(texts[list(plan.rows)])) for plan in plans]
    return [StepInputs(plan, *both, torch.arange(4)) for plan, both in zip(plans, sides, strict=True)]


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_a_step_changes_what_learns_and_nothing_else(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    before = state_of(trainer)
    row = trainer.step(feature_steps(1)[0])
    changed = {name for name, tensor in state_of(trainer).items() if not torch.equal(tensor, before[name])}
    assert changed == {"image_projection.0.weight", "text_projection.0.weight", "loss.logit_scale"}
    assert (row.step, row.epoch) == (1, 1)


def test_accumulated_gradients_are_those_of_the_mean_loss(make_trainer: Callable[..., Trainer]) -> None:
    steps = feature_steps(9)
    trainer = make_trainer({"optim.accumulate": 4})
    model = trainer.model
    losses = [
        contrastive_loss(
            model.project_image(*tensors_of(s.image)),
            model.project_text(*tensors_of(s.text)),
            model.loss.scale(),
            s.keys,
        )
        for s in steps[:4]
    ]
    learning = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(torch.stack(losses).mean(), learning)
    rows = [trainer.step(step) for step in steps]
    # The ninth step stands alone: the last window of nine steps by four is short.
    assert [row.gradient_norm is not None for row in rows] == [False, False, False, True] * 2 + [True]
    norm = torch.nn.utils.get_total_norm(gradients)
    assert rows[3].gradient_norm == pytest.approx(norm.item(), rel=GRADIENT_NORM.bound)


def test_weights_change_on_updates_alone(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer({"optim.accumulate": 2})
    before = state_of(trainer)["image_projection.0.weight"]
    first, second = feature_steps(2)
    trainer.step(first)
    assert torch.equal(state_of(trainer)["image_projection.0.weight"], before)
    trainer.step(second)
    assert not torch.equal(state_of(trainer)["image_projection.0.weight"], before)


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(make_trainer: Callable[..., Trainer]) -> None:
    seen: list[float] = []
    trainer = make_trainer({"optim.clip_norm": 0.01})
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(gradient_norm(optimizer)))
    row = trainer.step(feature_steps(1)[0])
    assert row.gradient_norm is not None
    assert row.gradient_norm > 0.1
    assert seen == [pytest.approx(0.01, rel=CLIPPED_NORM.bound)]


def gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.get_total_norm(gradients).item()


def test_scale_stops_at_its_bound(make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer({"optim.logit_scale_lr": 50.0, "optim.projection_lr": 0.0})
    image = functional.normalize(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    for name in ("project_image", "project_text"):
        monkeypatch.setattr(trainer.model, name, lambda _: image)
    for step in feature_steps(3):
        trainer.step(step)  # right pairs are alike: the scale wants to grow without end
    assert trainer.model.loss.scale().item() == pytest.approx(100.0)


def test_pair_whose_vector_is_not_finite_is_named_and_nothing_changes(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    before = state_of(trainer)
    inputs = feature_steps(1)[0]
    tensors_of(inputs.text)[0][2, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="the loss at step 1 is not finite") as caught:
        trainer.step(inputs)
    assert caught.value.rows == (inputs.plan.rows[2],)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(trainer).items())


def test_gradient_that_is_not_finite_names_the_pairs_of_its_update(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer({"optim.accumulate": 2})
    first, second = feature_steps(2)
    trainer.step(first)
    before = state_of(trainer)
    trainer.model.image_projection.get_parameter("0.weight").register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteError, match="the gradient at step 2 is not finite") as caught:
        trainer.step(second)
    assert caught.value.rows == first.plan.rows + second.plan.rows
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(trainer).items())


def test_weights_that_an_update_throws_out_of_range_stop_training(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer({"optim.projection_lr": 1e30, "optim.warmup": 0.0})
    with pytest.raises(NonFiniteError, match="the weights after the update at step 1 is not finite"):
        trainer.step(feature_steps(1)[0])


def test_saved_and_resumed_it_goes_on_the_same(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    steps = feature_steps(9)
    whole, cut = make_trainer(), make_trainer()
    rows = [whole.step(step) for step in steps]
    assert [cut.step(step) for step in steps[:5]] == rows[:5]
    cut.save(tmp_path / "last.safetensors", Progress(step=5))
    resumed = make_trainer()
    assert resumed.resume(tmp_path / "last.safetensors").step == 5
    assert [resumed.step(step) for step in steps[5:]] == rows[5:]
    assert all(torch.equal(tensor, state_of(whole)[name]) for name, tensor in state_of(resumed).items())


def test_state_of_the_gradient_scaler_is_saved(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer, resumed = make_trainer(), make_trainer()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=5)
    for step in feature_steps(3):
        trainer.step(step)
    trainer.save(tmp_path / "last.safetensors", Progress(step=3))
    resumed.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=5)
    resumed.resume(tmp_path / "last.safetensors")
    assert resumed.scaler.state_dict() == trainer.scaler.state_dict()
    assert resumed.scaler.state_dict()["_growth_tracker"] == 3


def test_overflow_under_the_gradient_scaler_leaves_the_update_out(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    before = state_of(trainer)
    row = trainer.step(feature_steps(1)[0])
    assert row.gradient_norm is not None
    assert not torch.isfinite(torch.tensor(row.gradient_norm))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(trainer).items())
    assert trainer.scaler.get_scale() < 1e38


def test_towers_that_learn_are_compiled_when_asked(make_model: MakeModel, make_config: MakeConfig) -> None:
    model = make_model()
    freeze(model.text_tower)
    Trainer(model, make_config({"train.compile": True}), Schedule(12, 4, 1))
    assert model.image_tower._compiled_call_impl is not None
    assert model.text_tower._compiled_call_impl is None
