from __future__ import annotations

from typing import get_args

import msgspec
import pytest
import torch
from torch import nn

from mmalign.errors import ConfigError
from mmalign.heads import AnyHead
from mmalign.heads.identity import IdentityHead
from mmalign.heads.linear import LinearHead
from mmalign.heads.mlp import MLPHead
from mmalign.heads.protocol import Head
from mmalign.heads.residual import ResidualHead
from tests.tolerances import STANDARDIZED

HEADS: tuple[type[Head], ...] = get_args(AnyHead)


def build(head: Head) -> nn.Sequential:
    torch.manual_seed(0)
    return head.build(5, 5 if isinstance(head, IdentityHead) else 4)


def test_the_table_knows_each_head_by_its_kind() -> None:
    kinds = {head.__struct_config__.tag: head for head in HEADS}
    assert kinds.keys() >= {"identity", "linear", "mlp", "residual"}
    for kind, head in kinds.items():
        assert msgspec.convert({"kind": kind}, AnyHead) == head()


@pytest.mark.parametrize(("kind", "num_layers"), [("linear", 1), ("mlp", 2), ("residual", 3)])
def test_a_head_has_as_many_layers_as_it_says(kind: str, num_layers: int) -> None:
    projection = build(msgspec.convert({"kind": kind}, AnyHead))
    assert sum(isinstance(module, nn.Linear) for module in projection.modules()) == num_layers
    assert projection(torch.rand(3, 5)).shape == (3, 4)


@pytest.mark.parametrize(("hidden_dim", "width"), [(None, 5), (3, 3)])
def test_the_first_layer_of_an_mlp_is_as_wide_as_the_features_or_as_said(hidden_dim: int | None, width: int) -> None:
    projection = build(MLPHead(hidden_dim=hidden_dim))
    assert [module.weight.shape for module in projection if isinstance(module, nn.Linear)] == [(width, 5), (4, width)]


@pytest.mark.parametrize("head", HEADS)
def test_dropout_acts_in_training_alone(head: type[Head]) -> None:
    projection, features = build(head(dropout=0.5)), torch.rand(8, 5)
    assert not torch.equal(projection(features), projection(features))
    projection.eval()
    assert torch.equal(projection(features), projection(features))


@pytest.mark.parametrize("head", HEADS)
def test_standardized_features_lose_their_common_offset(head: type[Head]) -> None:
    projection, features = build(head(standardize_features=True)), torch.rand(64, 5)
    assert torch.allclose(projection(features), projection(features + 100), atol=STANDARDIZED.bound)


def test_an_identity_head_keeps_features_and_refuses_another_width() -> None:
    features = torch.rand(3, 5)
    assert torch.equal(build(IdentityHead())(features), features)
    with pytest.raises(
        ConfigError, match=r"the tower's 5 features, and model\.embed_dim is 4\. Set model\.embed_dim = 5"
    ):
        IdentityHead().build(5, 4)


def test_a_residual_head_begins_as_the_linear_one() -> None:
    residual, linear = build(ResidualHead(num_blocks=2)), build(LinearHead())
    linear.load_state_dict({"0.weight": residual.get_parameter("2.weight").detach()})
    features = torch.rand(3, 5)
    assert torch.equal(residual(features), linear(features))


def test_a_residual_block_adds_its_change_to_the_features() -> None:
    block = build(ResidualHead())[0]
    with torch.no_grad():
        last = block.get_parameter("change.3.weight")
        last.copy_(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
        block.get_parameter("change.3.bias").fill_(0.5)
    features = torch.rand(3, 5)
    centred = features - features.mean(dim=1, keepdim=True)
    normal = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    first = nn.functional.linear(normal, block.get_parameter("change.1.weight"), block.get_parameter("change.1.bias"))
    changed = features + nn.functional.gelu(first) @ last.T + 0.5
    assert torch.allclose(block(features), changed, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "embed_dim"),
    [(MLPHead(hidden_dim=10**14), 4), (MLPHead(), 10**15), (ResidualHead(), 10**15), (LinearHead(), 10**20)],
)
def test_a_head_that_the_memory_does_not_hold_is_an_error_of_the_configuration(head: Head, embed_dim: int) -> None:
    with pytest.raises(ConfigError, match=r"needs more memory than there is: .* Choose a smaller"):
        head.build(5, embed_dim)
