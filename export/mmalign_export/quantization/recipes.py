"""The ladders: ways to make a tower of fewer bits, the boldest first, each a function of what stays in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from mmalign_export.quantization.activations import record_activations
from mmalign_export.quantization.biases import record_means, with_corrected_biases
from mmalign_export.quantization.convolutions import (
    Bounds,
    Range,
    head_nodes,
    known_bounds,
    quantize_convolutions,
    record_ranges,
    weighted_nodes,
    widened,
)
from mmalign_export.quantization.dynamic import quantize_dynamically
from mmalign_export.quantization.examples import Calibration
from mmalign_export.quantization.fusion import fuse_transformer
from mmalign_export.quantization.half import to_half
from mmalign_export.quantization.integer import Granularity, IntegerPlan, to_integers
from mmalign_export.quantization.sites import Role, find_sites
from mmalign_export.quantization.weights import quantize_weights
from mmalign_runtime.spec import ImageSpec, ImageTower, TextTower

# By how much ranges of extremes are widened. On the demo, with a tenth the mean cosine of 96 photographs unseen is as
# without, within 0.002; with a quarter 0.005 lower.
_MARGIN = 0.1

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


def image_recipes(path: Path, tower: ImageTower, calibration: Calibration) -> tuple[Recipe, ...]:
    """Return the ladder of a convolutional tower: static eight bits, by three ways to choose the ranges.

    What projects the features stays in float32: it costs next to nothing, no later layer evens out what it rounds, and
    features that are standardised on drawings are thirty times as large on photographs.
    """
    model = onnx.load(path)
    head = head_nodes(model)
    layers = tuple(name for name in weighted_nodes(model) if name not in head)
    bounds = known_bounds(model) | {tower.inputs.pixel_values: _pixel_bounds(tower.spec)}
    ranges: dict[Range, str] = {"minmax": "extremes", "entropy": "entropy", "percentile": "percentile"}

    @cache
    def recorded(kind: Range) -> TensorsData:
        found = record_ranges(path, tower.inputs.pixel_values, calibration.images, kind)
        return widened(found, _MARGIN if kind == "minmax" else 0.0, bounds)

    @cache
    def means() -> dict[str, NDArray[np.float32]]:
        return record_means(path, tower.inputs.pixel_values, calibration.images)

    def build(kind: Range, excluded: frozenset[str]) -> ModelProto:
        kept = excluded | head
        return quantize_convolutions(with_corrected_biases(model, means(), kept), recorded(kind), kept)

    return tuple(Recipe(f"static, {name}", partial(build, kind), layers) for kind, name in ranges.items())


def _pixel_bounds(spec: ImageSpec) -> Bounds:
    """Return what the darkest and the lightest pixel become."""
    ends = [(value - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True) for value in (0.0, 1.0)]
    return min(ends), max(ends)


def half_recipes(path: Path) -> tuple[Recipe, ...]:
    """Return the ladder of a tower for GPUs: one rung."""
    model = onnx.load(path)
    return (Recipe("float16", lambda _: to_half(model)),)


def text_recipes(path: Path, tower: TextTower, calibration: Calibration) -> tuple[Recipe, ...]:
    """Return the ladder of a transformer: static, by token in part, by token, weights alone."""
    model = onnx.load(path)
    fused = fuse_transformer(model)
    sites = find_sites(fused)
    layers = tuple(site.name for site in sites)
    activations = record_activations(fused, {site.source for site in sites}, calibration.tokens, tower.inputs)

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
