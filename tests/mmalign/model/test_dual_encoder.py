from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from mmalign.model import DualEncoder, ModelConfig, freeze, is_frozen
from tests.tolerances import UNIT_LENGTH

MakeModel = Callable[..., DualEncoder]


@pytest.mark.parametrize("kind", ["linear", "mlp", "residual"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_vectors_have_unit_length_in_float32(make_model: MakeModel, kind: str, batch_size: int) -> None:
    config = msgspec.convert({"embed_dim": 4, "image_head": {"kind": kind}, "text_head": {"kind": kind}}, ModelConfig)
    model = make_model(config).eval()
    images = model.encode_image(torch.rand(batch_size, 3, 9, 7))
    texts = model.encode_text(torch.ones(batch_size, 5, dtype=torch.int64), torch.ones(batch_size, 5))
    for vectors in (images, texts):
        assert vectors.shape == (batch_size, 4)
        assert vectors.dtype == torch.float32
        assert (vectors.norm(dim=-1) - 1).abs().max() <= UNIT_LENGTH.bound


def test_freezing_stops_learning_and_nothing_else(make_model: MakeModel) -> None:
    model = make_model(ModelConfig())
    freeze(model.image_tower)
    assert is_frozen(model.image_tower)
    assert not is_frozen(model.text_tower)
    assert not is_frozen(model)
