"""The recipes that a tower is tried with: chosen by what its graph computes, and not by what it is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
from onnx import ModelProto

from mmalign_export.quantization.constants import with_folded_constants
from mmalign_export.quantization.convolution_ladder import ConvolutionLadder
from mmalign_export.quantization.convolutions import Bounds, Range
from mmalign_export.quantization.dynamic import quantize_dynamically
from mmalign_export.quantization.fusion import fuse_transformer
from mmalign_export.quantization.half import to_half
from mmalign_export.quantization.items import Item
from mmalign_export.quantization.product_ladder import ProductLadder
from mmalign_export.quantization.recipe import Recipe
from mmalign_export.quantization.weights import quantize_weights

# What a tower of convolutions and products is tried with in one: ranges of the convolutions, plan of the products.
_JOINED: tuple[tuple[Range, str], ...] = (
    ("minmax", "static, 0.7"),
    ("minmax", "by token, 0.7"),
    ("percentile", "static, 0.7"),
    ("percentile", "by token, 0.7"),
)


def half_recipes(path: Path) -> tuple[Recipe, ...]:
    """Return the ladder of a tower for GPUs: one rung."""
    model = onnx.load(path)
    return (Recipe("float16", lambda _: to_half(model)),)


def eight_bit_recipes(path: Path, items: Sequence[Item], bounds: Mapping[str, Bounds]) -> tuple[Recipe, ...]:
    """Return the ladders that fit a tower's graph, calibrated on items; none where it neither convolves nor multiplies.

    Convolutions have static ranges, products (attention, feed-forward) are rounded statically, by token, or in their
    weights alone. A tower that has both, as MobileCLIP and ConvNeXt do, gets both, and the two in one. The convolution
    that cuts an image into patches is a product over patches, and stays in float32.

    Args:
        path: The float32 tower.
        items: What ranges are taken from, one image or text each.
        bounds: The least and largest value that inputs can hold, by name.
    """
    model = _named(with_folded_constants(onnx.load(path)))
    products = ProductLadder(_named(fuse_transformer(model)), items)
    # Fused, few float operators stand between the convolutions of a hybrid. Others keep their own graph.
    convolved = products.fused if products.sites else model
    convolutions = ConvolutionLadder(convolved, items, bounds, beside_products=bool(products.sites))
    recipes: list[Recipe] = []
    if convolutions.layers:
        recipes += convolutions.recipes()
    if products.sites:
        recipes += products.recipes()
    if convolutions.layers and products.sites:
        recipes += [
            Recipe(
                f"{plan} and {convolutions.title(kind)}",
                partial(_both, convolutions, products, kind, plan),
                _in_order(products.fused, {*convolutions.layers, *products.layers}),
                fixes_products=products.fixes(plan),
            )
            for kind, plan in _JOINED
        ]
    return (*recipes, *_of_weights(model)) if products.sites else tuple(recipes)


def _both(
    convolutions: ConvolutionLadder, products: ProductLadder, kind: Range, plan: str, excluded: frozenset[str]
) -> ModelProto:
    return convolutions.quantized(products.build(plan, excluded), kind, excluded)


def _of_weights(model: ModelProto) -> tuple[Recipe, ...]:
    constants = {tensor.name for tensor in model.graph.initializer}
    matrices = tuple(
        node.name for node in model.graph.node if node.op_type == "MatMul" and constants.intersection(node.input)
    )
    return (
        Recipe("weights, 8 bits", lambda excluded: quantize_weights(model, 8, excluded), matrices),
        Recipe("weights, 4 bits", lambda excluded: quantize_weights(model, 4, excluded), matrices, "four bits"),
        Recipe("dynamic", lambda _: quantize_dynamically(model), refused="moves with its batch"),
    )


def _named(model: ModelProto) -> ModelProto:
    """Give nodes without a name that of their output: what is to stay in float32 is told by name."""
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _in_order(model: ModelProto, layers: set[str]) -> tuple[str, ...]:
    names = (name for node in model.graph.node for name in (node.name, node.output[0]))
    return tuple(dict.fromkeys(name for name in names if name in layers))
