"""The ladders: ways to make a tower of fewer bits, the boldest first, each a function of what stays in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import msgspec
import onnx
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from mmalign_export.quantize.activations import record_activations
from mmalign_export.quantize.convolutions import (
    Range,
    quantize_convolutions,
    record_ranges,
    weighted_nodes,
)
from mmalign_export.quantize.dynamic import quantize_dynamically
from mmalign_export.quantize.examples import Calibration
from mmalign_export.quantize.fusion import fuse_transformer
from mmalign_export.quantize.half import to_half
from mmalign_export.quantize.integer import Granularity, IntegerPlan, to_integers
from mmalign_export.quantize.sites import Role, find_sites
from mmalign_export.quantize.weights import quantize_weights
from mmalign_runtime.spec import ImageTowerFiles, TextTowerFiles

Build = Callable[[frozenset[str]], ModelProto]

_EVERY_TOKEN: dict[Role, Granularity] = {
    "qkv": "token",
    "mixed": "token",
    "up": "token",
    "down": "token",
    "other": "token",
}


class Recipe(msgspec.Struct, frozen=True):
    """One way to make a tower smaller; `layers` are what it can leave in float32, by name, in the order they run.

    `refused` says why it is only measured, and never offered.
    """

    name: str
    build: Build
    layers: tuple[str, ...] = ()
    refused: str = ""


def image_recipes(path: Path, files: ImageTowerFiles, calibration: Calibration) -> tuple[Recipe, ...]:
    """Return the ladder of a convolutional tower: static eight bits, by three ways to choose the ranges.

    The last product stays in float32: it costs next to nothing, and what it rounds no later layer evens out.
    """
    model = onnx.load(path)
    *layers, last = weighted_nodes(model)
    ranges: dict[Range, str] = {"minmax": "extremes", "entropy": "entropy", "percentile": "percentile"}

    @cache
    def recorded(kind: Range) -> TensorsData:
        return record_ranges(path, files.input_name, calibration.images, kind)

    def build(kind: Range, excluded: frozenset[str]) -> ModelProto:
        return quantize_convolutions(model, recorded(kind), excluded | {last})

    return tuple(Recipe(f"static, {name}", partial(build, kind), tuple(layers)) for kind, name in ranges.items())


def half_recipes(path: Path) -> tuple[Recipe, ...]:
    """Return the ladder of a tower for GPUs: one rung."""
    model = onnx.load(path)
    return (Recipe("float16", lambda _: to_half(model)),)


def text_recipes(path: Path, files: TextTowerFiles, calibration: Calibration) -> tuple[Recipe, ...]:
    """Return the ladder of a transformer: static, by token in part, by token, weights alone."""
    model = onnx.load(path)
    fused = fuse_transformer(model)
    sites = find_sites(fused)
    layers = tuple(site.name for site in sites)
    activations = record_activations(fused, {site.source for site in sites}, calibration.tokens, files.input_names)

    def build(plan: IntegerPlan, excluded: frozenset[str]) -> ModelProto:
        return to_integers(fused, sites, activations, msgspec.structs.replace(plan, excluded=excluded))

    plans = {
        "static, 0.5": IntegerPlan(smoothing=0.5),
        "static, 0.7": IntegerPlan(smoothing=0.7),
        "static, 0.8": IntegerPlan(smoothing=0.8),
        "static, 0.7, percentile": IntegerPlan(smoothing=0.7, percentile=99.99),
        "static, 0.7, by token": IntegerPlan({"down": "token"}, 0.7),
        "by token, 0.7": IntegerPlan(_EVERY_TOKEN, 0.7),
    }
    matrices = tuple(node.name for node in model.graph.node if node.op_type == "MatMul")
    return (
        *(Recipe(name, partial(build, plan), layers) for name, plan in plans.items()),
        Recipe("weights, 8 bits", lambda excluded: quantize_weights(model, 8, excluded), matrices),
        Recipe("weights, 4 bits", lambda excluded: quantize_weights(model, 4, excluded), matrices, "four bits"),
        Recipe("dynamic", lambda _: quantize_dynamically(model), refused="moves with its batch"),
    )
