from __future__ import annotations

from typing import get_args

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.losses import AnyLossConfig
from mmalign.losses.infonce import InfoNCE, InfoNCEConfig
from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, share_a_key

CONFIGS: tuple[type[LossConfig], ...] = get_args(AnyLossConfig)


def test_the_table_knows_each_loss_by_its_kind() -> None:
    kinds = {config.__struct_config__.tag: config for config in CONFIGS}
    assert kinds.keys() == {"infonce", "sigmoid", "hard_negatives", "soft_targets"}
    for kind, config in kinds.items():
        assert msgspec.convert({"kind": kind}, AnyLossConfig) == config()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_loss_falls_when_right_pairs_are_alike(config: type[LossConfig]) -> None:
    loss = config().build()
    image = functional.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    right: Tensor = loss(EmbeddedBatch(image, image, torch.arange(8)))
    wrong: Tensor = loss(EmbeddedBatch(image, image.roll(1, dims=0), torch.arange(8)))
    assert right.item() < wrong.item()


@pytest.mark.parametrize("config", CONFIGS)
def test_scale_starts_at_the_inverse_temperature_and_learns(config: type[LossConfig]) -> None:
    loss = config(temperature=0.25).build()
    assert loss.scale().item() == loss.similarity().scale == pytest.approx(4.0)
    assert "logit_scale" in dict(loss.named_parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_fixed_temperature_is_not_a_parameter_but_is_saved(config: type[LossConfig]) -> None:
    loss = config(temperature=0.5, learn_temperature=False).build()
    assert loss.scale().item() == pytest.approx(2.0)
    assert "logit_scale" not in dict(loss.named_parameters())
    assert "logit_scale" in loss.state_dict()


def test_scale_is_bounded_and_can_come_down_again_from_its_bound() -> None:
    loss = InfoNCEConfig().build()
    with torch.no_grad():
        loss.logit_scale.fill_(9.0)
    loss.bound_scale()
    assert loss.scale().item() == pytest.approx(100.0)
    (gradient,) = torch.autograd.grad(loss.scale(), loss.logit_scale)
    assert gradient > 0


@pytest.mark.parametrize("config", CONFIGS)
def test_temperature_beyond_the_bound_is_refused(config: type[LossConfig]) -> None:
    with pytest.raises(ValueError, match=r"scale of 200, above max_logit_scale 100"):
        config(temperature=0.005)
    assert config(temperature=0.01).build().scale().item() == pytest.approx(100.0)


def test_a_softmax_reads_what_infonce_trained() -> None:
    similarity = InfoNCEConfig(temperature=0.1).build().similarity()
    assert (similarity.kind, similarity.scale, similarity.bias) == ("softmax", pytest.approx(10.0), 0.0)


def test_pairs_share_a_key_in_any_column() -> None:
    shared = share_a_key(torch.tensor([[0, 0], [1, 0], [1, 1], [2, 2]]))
    assert shared.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_refuses_what_it_does_not_know_and_does_not_change(config: type[LossConfig]) -> None:
    kind = config.__struct_config__.tag
    with pytest.raises(msgspec.ValidationError, match="unknown field `tau`"):
        msgspec.convert({"kind": kind, "tau": 0.1}, AnyLossConfig)
    with pytest.raises(TypeError, match="positional"):
        config(0.1)  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        config().temperature = 0.2  # type: ignore[misc]


@pytest.mark.parametrize("config", CONFIGS)
def test_temperature_and_bound_are_positive(config: type[LossConfig]) -> None:
    kind = config.__struct_config__.tag
    for field in ("temperature", "max_logit_scale"):
        with pytest.raises(msgspec.ValidationError, match=rf"> 0.0 - at `\$\.{field}`"):
            msgspec.convert({"kind": kind, field: 0.0}, AnyLossConfig)
    low = msgspec.convert({"kind": kind, "temperature": 0.5, "max_logit_scale": 2.0}, AnyLossConfig)
    high = msgspec.convert({"kind": kind, "temperature": 4.0, "max_logit_scale": 0.5}, AnyLossConfig)
    assert [each.build().scale().item() for each in (low, high)] == [pytest.approx(2.0), pytest.approx(0.25)]


def test_the_defaults_are_those_of_clip() -> None:
    config = InfoNCEConfig()
    assert (config.temperature, config.learn_temperature, config.max_logit_scale) == (0.07, True, 100.0)


@pytest.mark.parametrize("missing", ["forward", "similarity"])
def test_a_loss_without_one_of_its_methods_cannot_be_made(missing: str) -> None:
    methods = {name: getattr(InfoNCE, name) for name in ("forward", "similarity") if name != missing}
    with pytest.raises(TypeError, match=f"abstract method '?{missing}'?"):
        type("Unfinished", (Loss,), methods)(InfoNCEConfig())


def test_an_embedded_batch_does_not_change() -> None:
    batch = EmbeddedBatch(torch.eye(2), torch.eye(2), torch.arange(2))
    with pytest.raises(AttributeError, match="immutable"):
        batch.keys = torch.zeros(2)  # type: ignore[misc]


def test_a_lower_bound_holds_too() -> None:
    loss = InfoNCEConfig(temperature=0.1, min_logit_scale=5.0).build()
    with torch.no_grad():
        loss.logit_scale.fill_(0.0)
    loss.bound_scale()
    assert loss.scale().item() == pytest.approx(5.0)
    with pytest.raises(ValueError, match=r"temperature 0\.5 is a scale of 2, below min_logit_scale 5; lower one of"):
        InfoNCEConfig(temperature=0.5, min_logit_scale=5.0)


def test_a_scheduled_temperature_goes_by_the_same_factor_each_step() -> None:
    loss = InfoNCEConfig(temperature=0.2, learn_temperature=False, final_temperature=0.05).build()
    found = []
    for progress in (0.0, 0.5, 1.0):
        loss.schedule_scale(progress)
        found.append(1 / loss.scale().item())
    assert found == [pytest.approx(0.2), pytest.approx(0.1), pytest.approx(0.05)]
    fixed = InfoNCEConfig(learn_temperature=False).build()
    fixed.schedule_scale(1.0)
    assert 1 / fixed.scale().item() == pytest.approx(0.07)


def test_a_temperature_is_learned_or_scheduled() -> None:
    with pytest.raises(ValueError, match="a temperature either learns or is scheduled"):
        InfoNCEConfig(final_temperature=0.05)
    with pytest.raises(ValueError, match=r"final_temperature 0\.001 is a scale of 1000, above max_logit_scale 100"):
        InfoNCEConfig(learn_temperature=False, final_temperature=0.001)
