"""Ladders by what a graph computes: a kind of network each, and what its candidates keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from mmalign_export.quantization.activations import Item, image_items
from mmalign_export.quantization.recipes import Recipe, eight_bit_recipes
from mmalign_export.quantization.trial import cosines, largest_move, open_model, run_all
from tests.export.quantization.tiny_models import OPTIONS, convolutional, graph_model, pictures
from tests.export.quantization.tiny_networks import items_for, write_network

CONVOLUTIONS = ["static, extremes", "static, entropy", "static, percentile"]
PRODUCTS = [
    *("static, 0.5", "static, 0.7", "static, 0.8"),
    *("static, 0.7, percentile", "static, 0.7, by token", "by token, 0.7"),
]
WEIGHTS = ["weights, 8 bits", "weights, 4 bits", "dynamic"]
JOINED = [
    *("static, 0.7 and static, extremes", "by token, 0.7 and static, extremes"),
    *("static, 0.7 and static, percentile", "by token, 0.7 and static, percentile"),
]
TRANSFORMERS = ("clip vision", "siglip vision", "siglip text", "layer scale")
# Of random weights, far below what eight bits lose: a product with a wrong scale or bias loses tenths.
LEAST_COSINE = 0.998

Ladder = tuple[ModelProto, tuple[Recipe, ...], tuple[Item, ...]]


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ladder]:
    """Give a kind's float32 model, its recipes and what they were calibrated on, each made once."""
    made: dict[str, Ladder] = {}

    def find(kind: str) -> Ladder:
        if kind not in made:
            path = tmp_path_factory.mktemp("network") / "model.onnx"
            model, items = write_network(kind, path), items_for(kind, 12)
            bounds = {"pixel_values": (-np.inf, np.inf)}
            made[kind] = model, eight_bit_recipes(path, items[:8], bounds), items
        return made[kind]

    return find


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_transformer_of_images_or_texts_has_the_ladder_of_products(
    kind: str, ladder: Callable[[str], Ladder]
) -> None:
    _, recipes, _ = ladder(kind)
    assert [recipe.name for recipe in recipes] == [*PRODUCTS, *WEIGHTS]


def test_a_hybrid_has_both_ladders_and_the_two_in_one(ladder: Callable[[str], Ladder]) -> None:
    _, recipes, _ = ladder("hybrid")
    assert [recipe.name for recipe in recipes] == [*CONVOLUTIONS, *PRODUCTS, *JOINED, *WEIGHTS]
    joined = next(recipe for recipe in recipes if recipe.name == JOINED[0])
    assert len(joined.layers) == 2 + 4  # depthwise convolutions, and two products a block


def test_a_convolutional_tower_has_the_ladder_of_convolutions(tmp_path: Path) -> None:
    onnx.save(convolutional(), tmp_path / "model.onnx")
    recipes = eight_bit_recipes(tmp_path / "model.onnx", image_items(pictures(2), "pixel_values"), {})
    assert [recipe.name for recipe in recipes] == CONVOLUTIONS


def test_a_graph_that_neither_convolves_nor_multiplies_has_no_ladder(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["pixel_values"], ["image_embeds"], axes=[2, 3], keepdims=0)
    shapes: dict[str, list[str | int]] = {"pixel_values": ["n", 3, 8, 8], "image_embeds": ["n", 3]}
    onnx.save(graph_model([node], {}, shapes), tmp_path / "model.onnx")
    assert eight_bit_recipes(tmp_path / "model.onnx", image_items(pictures(2), "pixel_values"), {}) == ()


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("clip vision", ["by token, 0.7", *WEIGHTS]),
        ("hybrid", [*CONVOLUTIONS, "by token, 0.7", JOINED[1], JOINED[3], *WEIGHTS]),
    ],
)
def test_without_fixed_ranges_of_products_the_convolutions_of_a_hybrid_are_rounded_all_the_same(
    kind: str, left: list[str], ladder: Callable[[str], Ladder]
) -> None:
    assert [recipe.name for recipe in ladder(kind)[1] if not recipe.fixes_products] == left


@pytest.mark.parametrize("kind", [*TRANSFORMERS, "hybrid"])
def test_every_candidate_keeps_the_vectors_and_none_that_is_offered_moves_with_its_batch(
    kind: str, ladder: Callable[[str], Ladder]
) -> None:
    model, recipes, items = ladder(kind)
    names = tuple(items[0].feeds)
    batches = [item.feeds for item in items[8:]]
    together = {name: np.concatenate([feeds[name] for feeds in batches]) for name in names}
    reference = run_all(open_model(model.SerializeToString(), names, OPTIONS), batches)
    assert (reference @ reference.T).min() < 0.9  # of vectors that hardly differ, a cosine shows nothing
    for recipe in recipes:
        if not recipe.refused:
            session = open_model(recipe.build(frozenset()).SerializeToString(), names, OPTIONS)
            assert cosines(run_all(session, batches), reference).min() > LEAST_COSINE, recipe.name
            assert largest_move(session, together) < 1e-6, recipe.name


@pytest.mark.parametrize("kind", [*TRANSFORMERS, "hybrid"])
def test_with_every_layer_left_in_float32_nothing_is_lost(kind: str, ladder: Callable[[str], Ladder]) -> None:
    model, recipes, items = ladder(kind)
    names, batches = tuple(items[0].feeds), [item.feeds for item in items[8:]]
    reference = run_all(open_model(model.SerializeToString(), names, OPTIONS), batches)
    for recipe in recipes:
        if recipe.layers:
            session = open_model(recipe.build(frozenset(recipe.layers)).SerializeToString(), names, OPTIONS)
            np.testing.assert_allclose(run_all(session, batches), reference, atol=1e-5, rtol=0)


def test_the_cut_into_patches_and_what_multiplies_pooled_features_stay_in_float32(
    ladder: Callable[[str], Ladder],
) -> None:
    _, recipes, _ = ladder("siglip vision")
    rounded = next(recipe for recipe in recipes if recipe.name == "static, 0.7")
    found = operators(rounded.build(frozenset()))
    assert found["Conv"] == 1
    # Of each layer queries, keys, values, mixed, up and down; of the head, keys and values of its attention alone.
    assert found["MatMulIntegerToFloat"] == 2 * 6 + len(rounded.layers) - 2 * 4
    assert len(rounded.layers) - 2 * 4 in (1, 2)
    hybrid = next(recipe for recipe in ladder("hybrid")[1] if recipe.name == "static, extremes")
    assert len(hybrid.layers) == 2


def test_quick_gelu_is_fused_and_known_as_a_gelu(ladder: Callable[[str], Ladder]) -> None:
    _, recipes, _ = ladder("clip vision")
    by_token = next(recipe for recipe in recipes if recipe.name == "static, 0.7, by token").build(frozenset())
    assert (operators(by_token)["QuickGelu"], operators(by_token)["Sigmoid"]) == (2, 0)
    # Only what a GELU made is rounded by token: shifted by its least value, so that no Abs is needed.
    assert (operators(by_token)["ReduceMax"], operators(by_token)["Abs"]) == (2, 0)


def test_layer_scales_and_biases_are_part_of_the_products(ladder: Callable[[str], Ladder]) -> None:
    _, recipes, _ = ladder("layer scale")
    static = next(recipe for recipe in recipes if recipe.name == "static, 0.7").build(frozenset())
    found = operators(static)
    assert found["MatMulIntegerToFloat"] == 2
    assert found["Add"] == 1  # what passes the layer by
    assert found["Mul"] == 2  # smoothing alone


def test_nodes_without_a_name_can_be_left_out(tmp_path: Path) -> None:
    model = convolutional()
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "model.onnx")
    recipe = eight_bit_recipes(tmp_path / "model.onnx", image_items(pictures(2), "pixel_values"), {})[0]
    assert len(set(recipe.layers)) == len(recipe.layers) > 1
    assert all(recipe.layers)
    kept = recipe.build(frozenset(recipe.layers[:1]))
    (first,) = (node for node in kept.graph.node if node.output[0] == recipe.layers[0])
    assert first.input[1] in {tensor.name for tensor in kept.graph.initializer}  # as it was
