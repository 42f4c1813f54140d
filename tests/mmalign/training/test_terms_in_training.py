"""Terms beside the loss: from the configuration through a run that is cut and goes on, to what its bundle declares."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, dump_config, load_config, parse_config
from mmalign.errors import CheckpointError, ConfigError
from mmalign.losses.distillation import Distillation
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.term import Term
from mmalign.optim import StepPlan
from mmalign.run import create_run, load_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.inputs import StepInputs, prepare_steps
from mmalign.training.metrics import read_metrics
from mmalign.training.trainer import Trainer
from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleError
from tests.mmalign.run_features import features_of, tensors_of
from tests.tolerances import BATCH_MATES

MakeConfig = Callable[..., Config]
TEACHER = str(Path(__file__).parents[2] / "runtime/fixtures/tiny_bundle")
FROZEN: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True, "train.num_views": 1}
TERMS: dict[str, tuple[Term, ...]] = {
    "matryoshka": (Matryoshka(dims=(4, 8)),),
    "views": (IntraModal(weight=0.5),),
    "teacher": (Distillation(teacher=TEACHER),),
    "all": (Matryoshka(dims=(4,)), IntraModal(), Distillation(teacher=TEACHER, temperature=0.1)),
}


def with_terms(config: Config, terms: tuple[Term, ...]) -> Config:
    return msgspec.structs.replace(config, terms=terms)


@pytest.mark.parametrize("name", ["views", "all"])
@pytest.mark.parametrize("settings", [FROZEN, {}], ids=["cached features", "towers that learn"])
def test_a_run_with_terms_that_is_cut_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, object]
) -> None:
    config = with_terms(make_config({**settings, "train.checkpoint_minutes": 0}), TERMS[name])
    train(config, tmp_path / "whole")
    take_step = Trainer.step

    def stop_at_three(self: Trainer, inputs: StepInputs) -> object:
        if inputs.plan.step == 3:
            raise KeyboardInterrupt
        return take_step(self, inputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", stop_at_three)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()
    one, other = (read_tensors(tmp_path / run / "last.safetensors").tensors for run in ("cut", "whole"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_terms_change_the_loss(make_config: MakeConfig, tmp_path: Path) -> None:
    losses = []
    for name in ("", *TERMS):
        config = with_terms(make_config({**FROZEN, "train.epochs": 1}), TERMS.get(name, ()))
        train(config, tmp_path / f"run {name}")
        losses.append(read_metrics(tmp_path / f"run {name}" / "metrics.csv")[0]["loss"])
    assert len(set(losses)) == len(losses)


def test_a_teacher_gives_what_its_bundle_serves_and_is_asked_once(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_terms(make_config({**FROZEN, "augment.first_caption": 1.0}), TERMS["teacher"])
    run, pairs = create_run(config, tmp_path / "run"), merged_splits(load_sources(config.data)).train
    features, plan = features_of(run, is_training=True), StepPlan(0, (3, 0, 7), seed=0)
    found = prepare_steps(config, features, pairs)[plan]
    assert isinstance(found, StepInputs)
    assert found.teacher is not None
    with Embedder.load(TEACHER) as embedder:
        images = embedder.encode_image([pairs[row].image for row in plan.rows])
        texts = embedder.encode_text([pairs[row].captions[0] for row in plan.rows])
        assert found.teacher.scale == embedder.similarity.scale
    assert np.abs(found.teacher.image.numpy() - images).max() <= BATCH_MATES.bound
    assert np.abs(found.teacher.text.numpy() - texts).max() <= BATCH_MATES.bound
    monkeypatch.setattr(Embedder, "encode_image", None)
    monkeypatch.setattr(Embedder, "encode_text", None)
    again = prepare_steps(config, features, pairs)[plan]
    assert isinstance(again, StepInputs)
    assert again.teacher is not None
    assert torch.equal(again.teacher.image, found.teacher.image)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"model.embed_dim": 5}, r"gives vectors of \d+ components, and model\.embed_dim is 5\. Set model"),
        ({"model.num_members": 2}, r"model\.num_members = 2 heads lie along directions of their own, and form"),
    ],
)
def test_vectors_that_cannot_be_the_teachers_are_refused(
    setting: dict[str, int], reason: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = with_terms(make_config({**FROZEN, **setting}), (Distillation(teacher=TEACHER, form="embedding"),))
    with pytest.raises(ConfigError, match=reason):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_cannot_be_used_is_refused_before_the_run_is_begun(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    damaged = shutil.copytree(TEACHER, tmp_path / "damaged")
    (damaged / "onnx/text_model.onnx").write_bytes(b"")
    for teacher in ("nowhere", tmp_path / "empty", damaged):
        config = with_terms(make_config(FROZEN), (Distillation(teacher=str(teacher)),))
        with pytest.raises(BundleError, match=r"nowhere|empty|damaged"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_another_teacher(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_terms(make_config({**FROZEN, "train.epochs": 1}), TERMS["teacher"])
    train(config, tmp_path)
    train(config, tmp_path, resume=True)
    monkeypatch.setattr("mmalign.training.train_run.identify_teacher", lambda _: "another space")
    with pytest.raises(CheckpointError, match="the teacher's bundle is now of another space, so it cannot go on"):
        train(config, tmp_path, resume=True)


def test_a_teacher_has_a_name() -> None:
    given = {"data": {"sources": [{"path": "pairs.csv"}]}, "terms": [{"kind": "distillation", "teacher": ""}]}
    with pytest.raises(ConfigError, match=r"terms.*teacher|length >= 1"):
        parse_config(given, "the test's configuration")


@pytest.mark.parametrize("settings", [FROZEN, {}], ids=["cached features", "towers that learn"])
def test_the_second_view_is_another_one(make_config: MakeConfig, tmp_path: Path, settings: dict[str, object]) -> None:
    config = with_terms(make_config(settings), TERMS["views"])
    run = create_run(config, tmp_path)
    steps = prepare_steps(config, features_of(run, is_training=True), merged_splits(load_sources(config.data)).train)
    inputs = steps[StepPlan(0, (3, 0, 7, 5), seed=0)]
    assert isinstance(inputs, StepInputs)
    assert inputs.view is not None
    for first, second in zip(tensors_of(inputs.image)[0], tensors_of(inputs.view)[0], strict=True):
        assert not torch.equal(first, second)


def test_a_run_declares_its_prefixes(make_config: MakeConfig, tmp_path: Path) -> None:
    config = with_terms(make_config(FROZEN), (Matryoshka(dims=(8, 4)),))
    train(config, tmp_path)
    assert dual_model(load_run(tmp_path)).prefix_dims == (4, 8)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ('[[terms]]\nkind = "matryoshka"\n', r"missing required field `dims`"),
        ('[[terms]]\nkind = "matryoshka"\ndims = [256]\n', r"prefix of 256 components is not shorter than model\.emb"),
        ("[[terms]]\ndims = [4]\n", r"a table of terms has no kind; choose one of distillation, intra_modal, matryo"),
        ('[[terms]]\nkind = "matryoska"\n', r"terms\.kind 'matryoska' is not known; choose one of"),
        ('[[terms]]\nkind = "intra_modal"\nwieght = 2.0\n', r"unknown key terms\.wieght; did you mean terms\.weight"),
        ('[[terms]]\nkind = "intra_modal"\n' * 2, "terms has several of kind 'intra_modal'; keep one of a kind"),
        ('[image_tower]\nfrozen = true\n[[terms]]\nkind = "intra_modal"\n', r"Set train\.num_views to 1 or more"),
    ],
)
def test_terms_that_do_not_fit_are_refused(tmp_path: Path, terms: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[[data.sources]]\npath = "pairs.csv"\n{terms}')
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_terms_are_written_out_and_read_again(make_config: MakeConfig, tmp_path: Path) -> None:
    config = with_terms(make_config(FROZEN), TERMS["all"])
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.toml") == config
    override = "terms=[{kind='matryoshka', dims=[2]}]"
    assert load_config(tmp_path / "config.toml", [override]).terms == (Matryoshka(dims=(2,)),)
