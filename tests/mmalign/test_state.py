from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.errors import CheckpointError
from mmalign.heads.linear import LinearHead
from mmalign.model import DualEncoder, ModelConfig, freeze
from mmalign.state import copy_state, frozen_state, learned_state
from mmalign.tensors import TensorFile

MakeModel = Callable[..., DualEncoder]


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
