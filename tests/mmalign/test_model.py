from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
from torch import nn

from mmalign.model import DualEncoder, ModelConfig, freeze, is_frozen
from tests.tolerances import STANDARDIZED, UNIT_LENGTH

MakeModel = Callable[..., DualEncoder]


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_vectors_have_unit_length_in_float32(make_model: MakeModel, projection: str, batch_size: int) -> None:
    config = msgspec.convert({"embed_dim": 4, "projection": projection}, ModelConfig)
    model = make_model(config).eval()
    images = model.encode_image(torch.rand(batch_size, 3, 9, 7))
    texts = model.encode_text(torch.ones(batch_size, 5, dtype=torch.int64), torch.ones(batch_size, 5))
    for vectors in (images, texts):
        assert vectors.shape == (batch_size, 4)
        assert vectors.dtype == torch.float32
        assert (vectors.norm(dim=-1) - 1).abs().max() <= UNIT_LENGTH.bound


def test_mlp_has_two_layers_and_linear_one(make_model: MakeModel) -> None:
    def num_layers(config: ModelConfig) -> int:
        return sum(isinstance(module, nn.Linear) for module in make_model(config).image_projection.modules())

    assert num_layers(ModelConfig()) == 1
    assert num_layers(ModelConfig(projection="mlp")) == 2


def test_dropout_acts_in_training_alone(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(image_dropout=0.5, projection="mlp"))
    features = torch.rand(8, 5)
    model.train()
    assert not torch.equal(model.project_image(features), model.project_image(features))
    model.eval()
    assert torch.equal(model.project_image(features), model.project_image(features))


def test_standardized_features_lose_their_common_offset(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(standardize_features=True)).train()
    features = torch.rand(64, 5)
    near, far = model.project_image(features), model.project_image(features + 100)
    assert torch.allclose(near, far, atol=STANDARDIZED.bound)


def test_scale_starts_at_the_inverse_temperature_and_learns(make_model: MakeModel) -> None:
    model = make_model(ModelConfig())
    assert model.scale().item() == pytest.approx(1 / 0.07)
    assert "logit_scale" in dict(model.named_parameters())


def test_fixed_temperature_is_no_parameter_but_is_saved(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(temperature=0.5, learn_temperature=False))
    assert model.scale().item() == pytest.approx(2.0)
    assert "logit_scale" not in dict(model.named_parameters())
    assert "logit_scale" in model.state_dict()


def test_scale_is_bounded_and_can_come_down_again_from_its_bound(make_model: MakeModel) -> None:
    model = make_model(ModelConfig())
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model.bound_scale()
    assert model.scale().item() == pytest.approx(100.0)
    (gradient,) = torch.autograd.grad(model.scale(), model.logit_scale)
    assert gradient > 0


def test_temperature_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale of 200, above max_logit_scale 100"):
        ModelConfig(temperature=0.005)


def test_freezing_stops_learning_and_nothing_else(make_model: MakeModel) -> None:
    model = make_model(ModelConfig())
    freeze(model.image_tower)
    assert is_frozen(model.image_tower)
    assert not is_frozen(model.text_tower)
    assert not is_frozen(model)
