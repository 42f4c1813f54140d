"""The recipes that a tower is tried with: chosen by what its graph computes, and not by what it is fed.

Products have a ladder (a transformer's, and those between convolutions), and so have convolutions: static eight bits,
by three ways to choose the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from mmalign_export.quantization.activations import Item, record_activations
from mmalign_export.quantization.constants import with_folded_constants
from mmalign_export.quantization.convolutions import (
    Bounds,
    Range,
    head_nodes,
    known_bounds,
    nodes_of_products,
    patch_nodes,
    quantize_convolutions,
    record_means,
    record_ranges,
    weighted_nodes,
    widened,
    with_corrected_biases,
)
from mmalign_export.quantization.dynamic import quantize_dynamically
from mmalign_export.quantization.fusion import fuse_transformer
from mmalign_export.quantization.integer import to_integers
from mmalign_export.quantization.integer_product import IntegerPlan
from mmalign_export.quantization.rounding import ColumnRounder, Granularity
from mmalign_export.quantization.sites import Role, find_sites
from mmalign_export.quantization.weights import quantize_weights

_EVERY_TOKEN: dict[Role, Granularity] = dict.fromkeys(get_args(Role), "token")
_PLANS = {
    "static, 0.5": IntegerPlan(smoothing=0.5),
    "static, 0.7": IntegerPlan(smoothing=0.7),
    "static, 0.8": IntegerPlan(smoothing=0.8),
    "static, 0.7, percentile": IntegerPlan(smoothing=0.7, percentile=99.99),
    "static, 0.7, by token": IntegerPlan({"down": "token"}, 0.7),
    "by token, 0.7": IntegerPlan(_EVERY_TOKEN, 0.7),
}
# By how much ranges of extremes are widened. On the demo, with a tenth the mean cosine of 96 photographs unseen is as
# without, within 0.002; with a quarter 0.005 lower.
_MARGIN = 0.1
_TITLES: dict[Range, str] = {"minmax": "extremes", "entropy": "entropy", "percentile": "percentile"}
# What a tower of convolutions and products is tried with in one: ranges of the convolutions, plan of the products.
_JOINED: tuple[tuple[Range, str], ...] = (
    ("minmax", "static, 0.7"),
    ("minmax", "by token, 0.7"),
    ("percentile", "static, 0.7"),
    ("percentile", "by token, 0.7"),
)


class Recipe(msgspec.Struct, frozen=True):
    """One way to make a tower smaller; `layers` are what it can leave in float32, by name, in the order they run.

    `build` is a function of what stays in float32. `refused` says why it is only measured, and never offered.
    `fixes_products`: what its products read has fixed ranges of the calibration, and could have scales by token, so
    that it is as good as the calibration is like what will be served. Convolutions have no other.
    """

    name: str
    build: Callable[[frozenset[str]], ModelProto]
    layers: tuple[str, ...] = ()
    refused: str = ""
    fixes_products: bool = False


class ProductLadder:
    """The products of a fused graph, and what flows into each.

    `layers` are empty where nothing is to be rounded. What multiplies pooled features, one row an item, stays in
    float32: it costs next to nothing, and no later layer evens out what it rounds.
    """

    def __init__(self, fused: ModelProto, items: Sequence[Item]) -> None:
        self.fused = fused
        found = find_sites(fused)
        self._activations = record_activations(fused, {site.source for site in found}, items)
        self._sites = tuple(site for site in found if self._activations[site.source].most_rows > 1)
        self.layers = tuple(site.name for site in self._sites)
        self._columns = ColumnRounder(self._activations)

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the rungs: static, by token in part, by token."""
        return tuple(
            Recipe(name, partial(self.build, name), self.layers, fixes_products=self.fixes(name)) for name in _PLANS
        )

    @staticmethod
    def fixes(plan: str) -> bool:
        """Whether a plan has fixed ranges, where others have scales by token."""
        return _PLANS[plan].granularity != _EVERY_TOKEN

    def build(self, plan: str, excluded: frozenset[str]) -> ModelProto:
        """Return the model with its products rounded as a plan says, all but the `excluded`."""
        kept = msgspec.structs.replace(_PLANS[plan], excluded=excluded)
        return to_integers(self.fused, self._sites, self._activations, kept, self._columns)


class ConvolutionLadder:
    """The convolutions of a graph, and the ranges of what flows between them.

    `layers` are empty where nothing convolves but the cutting into patches. What projects the features stays in
    float32: it costs next to nothing, no later layer evens out what it rounds, and features that are standardised on
    drawings are thirty times as large on photographs.
    """

    def __init__(
        self, model: ModelProto, items: Sequence[Item], bounds: Mapping[str, Bounds], *, beside_products: bool
    ) -> None:
        self._model = model
        self._feeds = tuple(item.feeds for item in items)
        self._bounds = known_bounds(model) | dict(bounds)
        self._kept = head_nodes(model) | patch_nodes(model)
        self._beside_products = beside_products
        self._ranges: dict[Range, TensorsData] = {}
        self.layers = tuple(name for name in weighted_nodes(model) if name not in self._kept)

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the rungs, the widest ranges first."""
        return tuple(
            Recipe(self.title(kind), partial(self.quantized, self._model, kind), self.layers) for kind in _TITLES
        )

    @staticmethod
    def title(kind: Range) -> str:
        """Return what a way to choose the ranges is called."""
        return f"static, {_TITLES[kind]}"

    def quantized(self, model: ModelProto, kind: Range, excluded: frozenset[str]) -> ModelProto:
        """Return a model that has this graph's convolutions with all but the `excluded` in eight bits."""
        kept = excluded | self._kept
        if self._beside_products:
            kept |= nodes_of_products(model)
        corrected = with_corrected_biases(model, self._means, kept)
        return quantize_convolutions(corrected, self._recorded(kind), kept)

    def _recorded(self, kind: Range) -> TensorsData:
        if kind not in self._ranges:
            found = record_ranges(self._model, self._feeds, kind)
            self._ranges[kind] = widened(found, _MARGIN if kind == "minmax" else 0.0, self._bounds)
        return self._ranges[kind]

    @cached_property
    def _means(self) -> dict[str, NDArray[np.float32]]:
        return record_means(self._model, self._feeds)


def eight_bit_recipes(path: Path, items: Sequence[Item], bounds: Mapping[str, Bounds]) -> tuple[Recipe, ...]:
    """Return the ladders that fit a tower's graph, calibrated on items; none where it neither convolves nor multiplies.

    Convolutions have static ranges, products (attention, feed-forward) are rounded statically, by token, or in their
    weights alone. A tower that has both, as MobileCLIP and ConvNeXt do, gets both, and the two in one. The convolution
    that cuts an image into patches is a product over patches, and stays in float32. `bounds` are the least and largest
    value that inputs can hold, by name.
    """
    model = _named(with_folded_constants(onnx.load(path)))
    products = ProductLadder(_named(fuse_transformer(model)), items)
    # Fused, few float operators stand between the convolutions of a hybrid. Others keep their own graph.
    convolved = products.fused if products.layers else model
    convolutions = ConvolutionLadder(convolved, items, bounds, beside_products=bool(products.layers))
    recipes: tuple[Recipe, ...] = convolutions.recipes() if convolutions.layers else ()
    if not products.layers:
        return recipes
    recipes += products.recipes()
    if convolutions.layers:
        layers = _in_order(products.fused, {*convolutions.layers, *products.layers})
        recipes += tuple(
            Recipe(
                f"{plan} and {convolutions.title(kind)}",
                partial(_both, convolutions, products, kind, plan),
                layers,
                fixes_products=products.fixes(plan),
            )
            for kind, plan in _JOINED
        )
    return (*recipes, *_of_weights(model))


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
