"""What only a GPU can show of training. Without one these tests are skipped, and say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import torch

from mmalign.config import Config
from mmalign.data import Pair
from mmalign.features import ModelFeatures
from mmalign.losses import AnyLossConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import LossConfig
from mmalign.run import create_run, load_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.metrics import MetricsRow
from mmalign.training.trainer import Trainer

MakeConfig = Callable[[dict[str, object]], Config]
KINDS: tuple[type[LossConfig], ...] = get_args(AnyLossConfig)
ON_CUDA = {"train.device": "cuda"}
SAME = 1e-4  # features of some units, float32 sums in another order; rounded to TF32 they move by 1e-2

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch sees")


@pytest.fixture
def pairs(make_config: MakeConfig) -> tuple[Pair, ...]:
    return tuple(merged_splits(load_sources(make_config({}).data)).train)


def test_features_are_those_of_the_cpu(make_config: MakeConfig, pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    config = make_config({"image_tower.frozen": True, "text_tower.frozen": True})
    texts = [caption for pair in pairs for caption in pair.captions]
    found = []
    for device in ("cpu", "cuda"):
        model = dual_model(create_run(config, tmp_path / device))
        features = ModelFeatures(model, tmp_path / f"cache {device}", torch.device(device), is_training=True)
        found.append((features.images.of(pairs, device), features.texts.of(texts, device)))
    (image, text), (image_on_cuda, text_on_cuda) = found
    assert (image_on_cuda - image).abs().max() <= SAME * image.abs().max()
    assert (text_on_cuda - text).abs().max() <= SAME * text.abs().max()


@pytest.mark.parametrize("autocast", ["off", "bf16", "fp16"])
def test_a_run_learns_and_its_model_is_read_without_a_gpu(
    make_config: MakeConfig, tmp_path: Path, autocast: str
) -> None:
    config = make_config({**ON_CUDA, "train.autocast": autocast, "train.epochs": 8, "optim.projection_lr": 0.01})
    train(config, tmp_path / "run")
    losses = [line.split(",")[2] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert float(losses[-1]) < float(losses[0])
    assert load_run(tmp_path / "run").model.device.type == "cpu"


def test_an_interrupted_run_goes_on_to_the_same_losses(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({**ON_CUDA, "train.epochs": 3, "train.checkpoint_minutes": 0})
    train(config, tmp_path / "whole")
    step = Trainer.step

    def interrupted(trainer: Trainer, inputs: object) -> MetricsRow:
        if inputs.plan.step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return step(trainer, inputs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    whole, cut = ((tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "cut"))
    assert len(cut) == len(whole)
    for left, right in zip(whole[1:], cut[1:], strict=True):
        assert float(left.split(",")[2]) == pytest.approx(float(right.split(",")[2]), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_takes_the_steps_of_the_cpu(make_config: MakeConfig, tmp_path: Path, kind: type[LossConfig]) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        settings = {"train.device": device, "train.epochs": 2, "train.chunk_size": 3, "text_tower.frozen": True}
        config = make_config(settings)  # frozen, a text tower drops nothing at random
        terms = (Matryoshka(dims=(2,)), IntraModal(weight=0.5))
        config = msgspec.structs.replace(config, loss=kind(chunk_size=2), terms=terms)
        train(config, tmp_path / device)
        rows = (tmp_path / device / "metrics.csv").read_text().splitlines()[1:]
        losses[device] = [float(row.split(",")[2]) for row in rows]
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-4)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)  # each step adds to what the last one left
