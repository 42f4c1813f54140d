"""Heads that learn apart and are served as one, against numpy in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.heads.members import JointSpace, Members
from mmalign.heads.mlp import MLPHead
from mmalign.losses.term import training_loss
from mmalign.model import DualEncoder, ModelConfig
from mmalign.optim import Schedule, plan_steps
from mmalign.run import create_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training.inputs import prepare_steps
from mmalign.training.trainer import Trainer
from tests.mmalign.run_features import features_of
from tests.tolerances import JOINED_COSINE

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., DualEncoder]
ENSEMBLE = ModelConfig(embed_dim=4, num_members=3, image_head=MLPHead(), text_head=MLPHead())


def stacked(model: DualEncoder, images: Tensor, texts: Tensor) -> np.ndarray:
    """Return the members' vectors side by side, (images and texts, M * D)."""
    sides = (model.image_members(images), model.text_members(texts))
    return torch.cat([torch.cat(side, dim=1) for side in sides]).detach().double().numpy()


def gathered(model: DualEncoder, images: Tensor, texts: Tensor) -> DualEncoder:
    assert model.joint_space is not None
    model.joint_space.gather(0, model.image_members(images), model.text_members(texts))
    model.join_members()
    return model


def test_the_vectors_are_the_leading_components_of_all_members(make_model: MakeModel) -> None:
    model = make_model(ENSEMBLE).eval()
    images, texts = torch.randn(40, 5), torch.randn(50, 6)
    both = stacked(gathered(model, images, texts), images, texts)
    leading = np.linalg.svd(both, full_matrices=False)[2][:4]  # (D, M * D)
    wanted = both @ leading.T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = torch.cat([model.project_image(images), model.project_text(texts)]).detach().double().numpy()
    assert np.abs(found @ found.T - wanted @ wanted.T).max() <= JOINED_COSINE.bound
    assert np.abs(np.abs(found) - np.abs(wanted)).max() <= JOINED_COSINE.bound, "the components come in another order"


def test_members_that_agree_are_one_head(make_model: MakeModel) -> None:
    model = make_model(ENSEMBLE).eval()
    for side in (model.image_projection, model.text_projection):
        members = cast("Members", side).each
        for member in members:
            member.load_state_dict(members[0].state_dict())
    images, texts = torch.randn(40, 5), torch.randn(50, 6)
    gathered(model, images, texts)
    found = model.project_image(images) @ model.project_text(texts).T
    alone = model.image_members(images)[1] @ model.text_members(texts)[1].T
    assert (found - alone).abs().max() <= JOINED_COSINE.bound


def test_the_directions_are_the_same_whatever_signs_a_library_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    joint, side = JointSpace(2, 3), Members([nn.Identity(), nn.Identity()], 3)
    joint.gather(0, [torch.randn(9, 3) for _ in range(2)], [torch.randn(9, 3) for _ in range(2)])
    joint.join(side)
    before, eigh = side.directions.clone(), torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    joint.join(side)
    assert torch.equal(side.directions, before)


def test_members_begin_and_learn_apart_by_the_mean_of_their_losses(make_config: MakeConfig, tmp_path: Path) -> None:
    frozen: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True, "model.num_members": 2}
    config = make_config({**frozen, "train.batch_size": 8})
    run, splits = create_run(config, tmp_path / "run"), merged_splits(load_sources(config.data))
    model = run.model
    steps = prepare_steps(config, features_of(run, is_training=True), splits.train)
    schedule = Schedule(len(splits.train), 8, 2, 1)
    inputs = steps[next(iter(plan_steps(schedule, 0, 0)))]
    trainer = Trainer(model, config, schedule)
    batches = trainer._embed(inputs)
    alone = [training_loss(model.loss, (), batch).item() for batch in batches]
    assert alone[0] != alone[1]
    members = cast("Members", model.image_projection).each
    before = [member.state_dict()["0.weight"].clone() for member in members]
    assert trainer.step(inputs).loss == pytest.approx(sum(alone) / 2, rel=1e-6)
    for member, start in zip(members, before, strict=True):
        assert not torch.equal(member.state_dict()["0.weight"], start)


def test_one_head_a_side_is_as_it_was(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(embed_dim=4))
    assert isinstance(model.image_projection, nn.Sequential)
    assert model.joint_space is None
    assert not [name for name in model.state_dict() if "moments" in name or "each" in name]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image_head": {"kind": "identity"}}, 'a head of kind "identity"'),
        ({"text_head": {"kind": "identity", "standardize_features": True}}, 'a head of kind "identity"'),
        ({"start": "linear_map"}, 'start = "linear_map"'),
        ({"attention": {"weight": 1.0}}, "attention"),
    ],
)
def test_what_there_is_only_one_of_is_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"num_members = 2 does not go with {re.escape(reason)}"):
        msgspec.convert({"num_members": 2, **settings}, ModelConfig)


def test_more_than_can_be_joined_is_refused() -> None:
    assert msgspec.convert({"num_members": 16, "embed_dim": 256}, ModelConfig).num_members == 16
    with pytest.raises(
        msgspec.ValidationError, match="num_members = 17 of embed_dim = 256 are 4352 components side by"
    ):
        msgspec.convert({"num_members": 17, "embed_dim": 256}, ModelConfig)


def test_the_refusal_is_an_error_of_the_configuration(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="num_members = 2 does not go with attention"):
        make_config({"model.num_members": 2, "model.attention": {"weight": 1.0}})
