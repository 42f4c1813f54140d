from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.checkpoints.checkpoint import (
    Progress,
    copy_state,
    frozen_state,
    learned_state,
    restore,
    save_best,
    save_last,
)
from mmalign.checkpoints.tensors import TensorFile, read_tensors, write_tensors
from mmalign.errors import CheckpointError
from mmalign.heads.linear import LinearHead
from mmalign.model import DualEncoder, ModelConfig, freeze
from mmalign.optim import OptimConfig, build_optimizer

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


def test_every_tensor_is_either_frozen_or_learned(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(embed_dim=4, image_head=LinearHead(standardize_features=True)))
    freeze(model.text_tower)
    frozen, learned = frozen_state(model), learned_state(model)
    assert not frozen.keys() & learned.keys()
    names = {name.removeprefix("loss.") for name in model.state_dict()}  # in files: logit_scale
    assert frozen.keys() | learned.keys() == names
    assert {name.split(".")[0] for name in frozen} == {"text_tower"}
    assert "image_projection.0.running_mean" in learned


def test_copies_into_the_model_and_leaves_the_rest_alone(make_model: MakeModel) -> None:
    source, target = make_model(seed=1), make_model(seed=2)
    file = TensorFile(learned_state(source) | {"optimizer.0.step": torch.tensor(3.0)}, {})
    copy_state(file, learned_state(target), Path("best.safetensors"))
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_another_model_s_file_is_refused_before_anything_is_copied(make_model: MakeModel) -> None:
    wide, model = make_model(ModelConfig(embed_dim=8)), make_model(seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"last.*image_projection.* has shape \(8, 5\).*wants \(4, 5\)"):
        copy_state(TensorFile(learned_state(wide), {}), learned_state(model), Path("last.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_file_that_lacks_tensors_is_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors \(logit_scale"):
        kept = {name: tensor for name, tensor in learned_state(model).items() if name != "logit_scale"}
        copy_state(TensorFile(kept, {}), learned_state(model), Path("last.safetensors"))
