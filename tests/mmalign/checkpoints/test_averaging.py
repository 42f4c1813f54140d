"""Averages of weights: against plain numbers, in validation, in checkpoints, and on from a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmalign.checkpoints.averaging import Averaging, Ema, LastEpochs, NoAverage
from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, dump_config, load_config
from mmalign.errors import ConfigError
from mmalign.model import DualEncoder
from mmalign.optim import Schedule
from mmalign.run import load_run
from mmalign.training import train
from mmalign.training.metrics import Validation, Validator
from mmalign.training.trainer import Trainer
from tests.mmalign.training.test_train_run import FROZEN, assert_same_numbers, interrupted_at
from tests.tolerances import AVERAGED

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., DualEncoder]
NAME = "image_projection.0.weight"
AVERAGES: dict[str, dict[str, object]] = {
    "ema": {"average.kind": "ema", "average.decay": 0.7},
    "epochs": {"average.kind": "epochs", "average.count": 2},
}


def weight_of(projection: nn.Sequential) -> nn.Parameter:
    layer = projection[0]
    assert isinstance(layer, nn.Linear)
    return layer.weight


def walk(model: DualEncoder, averaging: Averaging, steps: range) -> list[float]:
    """Set a weight to the square of each step, and return its course."""
    for step in steps:
        weight_of(model.image_projection).data.fill_(float(step) ** 2)
        averaging.take(step)
    return [float(step) ** 2 for step in steps]


def test_a_moving_average_is_of_all_steps(make_model: MakeModel) -> None:
    model = make_model()
    kept: dict[str, Tensor] = {}
    averaging = Averaging(Ema(decay=0.3), model, Schedule(12, 4, 4), kept)
    course = walk(model, averaging, range(12))
    expected = course[0]
    for num_updates, weight in enumerate(course[1:], start=1):
        decay = min(0.3, (1 + num_updates) / (10 + num_updates))
        expected = decay * expected + (1 - decay) * weight
    assert (kept[f"average.{NAME}"].double() / expected - 1).abs().max() <= AVERAGED.bound
    with averaging.applied():
        assert torch.equal(weight_of(model.image_projection), kept[f"average.{NAME}"])
    assert (weight_of(model.image_projection) == 121).all()


def test_the_mean_of_epochs_is_that_of_their_last_weights(make_model: MakeModel) -> None:
    """Three steps an epoch: epochs end with steps 2, 5, 8 and 11."""
    model = make_model()
    kept: dict[str, Tensor] = {}
    averaging = Averaging(LastEpochs(count=3), model, Schedule(12, 4, 4), kept)
    walk(model, averaging, range(2))
    assert kept == {}
    walk(model, averaging, range(2, 6))
    assert (kept[f"average.{NAME}"] == (4 + 25) / 2).all()
    walk(model, averaging, range(6, 12))
    assert torch.allclose(kept[f"average.{NAME}"], torch.tensor((25 + 64 + 121) / 3), rtol=AVERAGED.bound)


def test_the_mean_of_more_epochs_than_there_ever_are_takes_no_longer(make_model: MakeModel) -> None:
    model = make_model()
    kept: dict[str, Tensor] = {}
    walk(model, Averaging(LastEpochs(count=10**12), model, Schedule(12, 4, 4), kept), range(6))
    assert (kept[f"average.{NAME}"] == (4 + 25) / 2).all()


def test_an_update_that_goes_on_into_the_next_epoch_ends_it(make_model: MakeModel) -> None:
    model = make_model()
    kept: dict[str, Tensor] = {}
    averaging = Averaging(LastEpochs(count=2), model, Schedule(12, 4, 4, accumulate=2), kept)
    for step in (1, 3, 5):  # the ends of updates; epochs end with steps 2 and 5
        walk(model, averaging, range(step, step + 1))
    assert (kept[f"average.{NAME}"] == (9 + 25) / 2).all()


def test_without_an_average_nothing_is_kept(make_model: MakeModel) -> None:
    model = make_model()
    kept: dict[str, Tensor] = {}
    averaging = Averaging(NoAverage(), model, Schedule(12, 4, 4), kept)
    walk(model, averaging, range(3))
    with averaging.applied():
        assert (weight_of(model.image_projection) == 4).all()
    assert kept == {}


@pytest.mark.parametrize("kind", AVERAGES)
def test_it_is_validated_saved_and_goes_on_from_a_cut_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = {**FROZEN, **AVERAGES[kind], "optim.projection_lr": 0.02, "model.image_head": {"kind": "mlp"}}
    config = make_config({**settings, "train.epochs": 4, "train.checkpoint_minutes": 0})
    validated, validate = [], Validator.validate

    def note(self: Validator) -> Validation:
        validated.append(weight_of(self._embedded._model.text_projection).detach().clone())
        return validate(self)

    monkeypatch.setattr(Validator, "validate", note)
    result = train(config, tmp_path / "whole")
    last, best = (read_tensors(tmp_path / "whole" / f"{name}.safetensors").tensors for name in ("last", "best"))
    average = last["kept.average.text_projection.0.weight"]
    assert torch.equal(validated[-1], average)
    assert not torch.equal(last["text_projection.0.weight"], average)
    assert torch.equal(best["text_projection.0.weight"], validated[result.best_step // 3 - 1])
    loaded = weight_of(load_run(tmp_path / "whole", "last").model.text_projection)
    assert torch.equal(loaded, average)
    for step in (1, 7):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", interrupted_at(step))
            train(config, tmp_path / f"cut{step}")
        assert train(config, tmp_path / f"cut{step}", resume=True) == result
        assert_same_numbers(tmp_path / f"cut{step}", tmp_path / "whole")


def test_it_is_written_and_read_and_its_keys_are_checked(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(AVERAGES["epochs"])
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.toml") == config
    assert config.average == LastEpochs(count=2)
    assert make_config().average == NoAverage()
    with pytest.raises(ConfigError, match=r"average\.kind 'mean' is not known; choose one of ema, epochs, none"):
        make_config({"average.kind": "mean"})
    with pytest.raises(ConfigError, match=r"unknown key average\.dekay; did you mean average\.decay"):
        make_config({"average.kind": "ema", "average.dekay": 0.9})
