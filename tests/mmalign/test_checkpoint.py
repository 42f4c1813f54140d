from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.checkpoint import Progress, restore, save_best, save_last
from mmalign.errors import CheckpointError
from mmalign.model import DualEncoder, ModelConfig
from mmalign.optim import OptimConfig, build_optimizer
from mmalign.state import learned_state
from mmalign.tensors import read_tensors, write_tensors

MakeModel = Callable[..., DualEncoder]
PROGRESS = Progress(step=7, best_score=1 / 3, best_step=5, data_id="d", gradient_scale=1024.0, gradient_growth=3)


def take_step(model: DualEncoder, optimizer: torch.optim.Optimizer, seed: int) -> None:
    features = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed))
    torch.autograd.backward(model.project_image(features).square().cumsum(dim=1).sum() * model.loss.scale())
    optimizer.step()
    optimizer.zero_grad()


def test_training_goes_on_as_if_nothing_had_happened(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    optimizer = build_optimizer(model, OptimConfig())
    take_step(model, optimizer, 0)
    save_last(tmp_path / "last.safetensors", model, optimizer, PROGRESS)
    other = make_model(seed=9)
    other_optimizer = build_optimizer(other, OptimConfig())
    assert restore(tmp_path / "last.safetensors", other, other_optimizer) == PROGRESS
    take_step(model, optimizer, 1)
    take_step(other, other_optimizer, 1)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_best_holds_what_learns_alone(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    save_best(tmp_path / "best.safetensors", model, PROGRESS)
    assert read_tensors(tmp_path / "best.safetensors").tensors.keys() == learned_state(model).keys()


def test_checkpoint_of_another_model_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model, other = make_model(), make_model(ModelConfig(embed_dim=8))
    save_last(tmp_path / "last.safetensors", model, build_optimizer(model, OptimConfig()), PROGRESS)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        restore(tmp_path / "last.safetensors", other, build_optimizer(other, OptimConfig()))


@pytest.mark.parametrize("metadata", [{}, {"progress": "{"}, {"progress": '{"step": "x"}'}])
def test_checkpoint_that_does_not_say_where_it_stood_is_refused(
    make_model: MakeModel, tmp_path: Path, metadata: dict[str, str]
) -> None:
    model = make_model()
    write_tensors(tmp_path / "last.safetensors", learned_state(model), metadata)
    with pytest.raises(CheckpointError, match="does not say where training stood"):
        restore(tmp_path / "last.safetensors", model, build_optimizer(model, OptimConfig()))
