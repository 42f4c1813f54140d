from __future__ import annotations

from mmalign_export.quantization.graph import GraphEditor
from mmalign_export.quantization.sites import find_sites, weights_of
from tests.export.quantization.conftest import TinyBert
from tests.export.quantization.tiny_models import convolutional


def test_each_layer_has_its_four_products_in_order(bert: TinyBert) -> None:
    assert [site.role for site in bert.sites] == ["qkv", "mixed", "up", "down"] * 2
    editor = GraphEditor(bert.fused)
    shapes = [weights_of(editor, site).shape for site in bert.sites[:4]]
    assert shapes == [(32, 96), (32, 32), (32, 64), (64, 32)]


def test_what_follows_attention_knows_which_values_it_takes(bert: TinyBert) -> None:
    for qkv, mixed, up, down in (bert.sites[:4], bert.sites[4:]):
        assert mixed.source_site == mixed.source == qkv.name
        assert qkv.source_site is up.source_site is down.source_site is None


def test_without_fusion_attention_is_three_plain_products(bert: TinyBert) -> None:
    roles = [site.role for site in find_sites(bert.exported)]
    assert "qkv" not in roles
    assert len(roles) == 2 * 6


def test_a_convolutional_tower_has_none() -> None:
    assert find_sites(convolutional()) == ()
