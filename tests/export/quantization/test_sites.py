from __future__ import annotations

import pytest
from onnx import ModelProto, helper

from mmalign_export.quantization.integer import to_integers
from mmalign_export.quantization.integer_product import IntegerPlan
from mmalign_export.quantization.sites import find_sites
from tests.export.quantization.conftest import TinyBert
from tests.export.quantization.tiny_models import constant, convolutional


def test_each_layer_has_its_four_products_in_order(bert: TinyBert) -> None:
    assert [site.role for site in bert.sites] == ["qkv", "mixed", "up", "down"] * 2
    shapes = [constant(bert.fused, site.weight).shape for site in bert.sites[:4]]
    assert shapes == [(32, 96), (32, 32), (32, 64), (64, 32)]


def test_what_follows_attention_knows_which_values_it_takes(bert: TinyBert) -> None:
    for qkv, mixed, up, down in (bert.sites[:4], bert.sites[4:]):
        assert mixed.source_site == mixed.source == qkv.name
        assert qkv.source_site is up.source_site is down.source_site is None


@pytest.mark.parametrize("change", ["unidirectional", "mask of lengths", "no bias"])
def test_attention_that_does_not_come_apart_is_left_alone(bert: TinyBert, change: str) -> None:
    other = ModelProto()
    other.CopyFrom(bert.fused)
    node = next(node for node in other.graph.node if node.op_type == "Attention")
    if change == "unidirectional":
        node.attribute.append(helper.make_attribute("unidirectional", 1))
    elif change == "mask of lengths":
        node.input[3] = "attention_mask"
    else:
        node.input[2] = ""
    found = find_sites(other)
    assert [site.role for site in found] == ["mixed", "up", "down", "qkv", "mixed", "up", "down"]
    assert [site.source_site for site in found if site.role == "mixed"] == [None, found[3].name]
    rounded = to_integers(other, found, bert.activations, IntegerPlan(smoothing=0.7))
    assert [each for each in rounded.graph.node if each.op_type == "Attention"] == [node]


def test_without_fusion_attention_is_three_plain_products(bert: TinyBert) -> None:
    roles = [site.role for site in find_sites(bert.exported)]
    assert "qkv" not in roles
    assert len(roles) == 2 * 6


def test_a_convolutional_tower_has_none() -> None:
    assert find_sites(convolutional()) == ()
