from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto
from onnxruntime.quantization.calibrate import TensorsData

from mmalign_export.quantization.convolutions import (
    head_nodes,
    known_bounds,
    quantize_convolutions,
    record_ranges,
    weighted_nodes,
    widened,
)
from mmalign_export.quantization.rounding import EIGHT_BITS, largest_level
from mmalign_export.quantization.trial import cosines, open_model
from tests.export.quantization.tiny_models import NUM_CHANNELS, OPTIONS, constant, convolutional, fed, observe, pictures
from tests.tolerances import CLIPPED_COSINE, CONVOLUTION_COSINE, SAME_FILE_COSINE

WEIGHTED = ("first", "depthwise", "projection")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("convolutions") / "model.onnx"
    onnx.save(convolutional(), path)
    return path


@pytest.fixture(scope="module")
def ranges(path: Path) -> TensorsData:
    return record_ranges(onnx.load(path), fed(pictures(8)), "minmax")


def by_name(model: ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def makers(model: ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def test_the_layers_with_weights_are_found_in_order() -> None:
    assert weighted_nodes(convolutional()) == WEIGHTED


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("minmax", CONVOLUTION_COSINE.bound),
        ("percentile", CONVOLUTION_COSINE.bound),
        ("entropy", CLIPPED_COSINE.bound),
    ],
)
def test_vectors_stay_near_float32(path: Path, kind: str, least: float) -> None:
    found = record_ranges(onnx.load(path), fed(pictures(8)), kind)  # type: ignore[arg-type]
    model = quantize_convolutions(onnx.load(path), found, frozenset())
    feeds = {"pixel_values": np.concatenate(pictures(5, seed=1))}
    vectors, expected = (observe(each, ["image_embeds"], feeds)[0] for each in (model, convolutional()))
    levels = EIGHT_BITS / largest_level()  # half as many, where weights have seven bits: twice the error
    assert cosines(vectors, expected).min() >= 1 - levels**2 * (1 - least)


def test_weights_are_signed_and_per_channel_and_activations_unsigned(path: Path, ranges: TensorsData) -> None:
    model = quantize_convolutions(onnx.load(path), ranges, frozenset())
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    roundings = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert roundings
    assert {types[node.input[2]] for node in roundings} == {TensorProto.UINT8}
    made_by = makers(model)
    for name in WEIGHTED:
        weight = made_by[by_name(model)[name].input[1]]
        assert (weight.op_type, types[weight.input[0]]) == ("DequantizeLinear", TensorProto.INT8)
    depthwise = made_by[by_name(model)["depthwise"].input[1]]
    assert constant(model, depthwise.input[1]).shape == (NUM_CHANNELS,)


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_excluded_node_stays_float(path: Path, ranges: TensorsData, name: str) -> None:
    model = quantize_convolutions(onnx.load(path), ranges, frozenset({name}))
    node = by_name(model)[name]
    before = by_name(convolutional())[name]
    np.testing.assert_array_equal(constant(model, node.input[1]), constant(convolutional(), before.input[1]))
    others = [by_name(model)[other].input[1] for other in WEIGHTED if other != name]
    assert all(makers(model)[weight].op_type == "DequantizeLinear" for weight in others)


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_excluded_node_is_run_in_float32(path: Path, ranges: TensorsData, name: str) -> None:
    # onnxruntime, left to itself, rounds the weights of a float convolution between two eight-bit ones.
    contents = quantize_convolutions(onnx.load(path), ranges, frozenset({name})).SerializeToString()
    feeds = {"pixel_values": np.concatenate(pictures(5, seed=1))}
    as_written = ort.SessionOptions()
    as_written.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = ort.InferenceSession(contents, as_written, providers=["CPUExecutionProvider"]).run(None, feeds)
    vectors = open_model(contents, ("pixel_values",), OPTIONS).run(feeds)
    assert cosines(vectors, expected).min() >= SAME_FILE_COSINE.bound


def test_ranges_serve_again_and_again(path: Path) -> None:
    # The quantizer gives what comes before a Relu the range of what comes after, in the ranges it was handed.
    ranges = record_ranges(onnx.load(path), fed(pictures(8)), "minmax")
    before = _extremes(ranges)
    first = quantize_convolutions(onnx.load(path), ranges, frozenset())
    quantize_convolutions(onnx.load(path), ranges, frozenset({"depthwise"}))
    again = quantize_convolutions(onnx.load(path), ranges, frozenset())
    assert _extremes(ranges) == before
    assert again.SerializeToString() == first.SerializeToString()


def test_the_head_is_the_first_product_behind_the_last_convolution_and_all_after_it() -> None:
    assert head_nodes(convolutional()) == {"projection", "norm", "unit"}


def test_bounds_are_those_of_the_graph() -> None:
    assert known_bounds(convolutional()) == {"r1": (0.0, 6.0), "r2": (0.0, np.inf)}


def test_a_margin_widens_both_ends_and_no_further_than_the_bounds(ranges: TensorsData) -> None:
    wider = _ends(widened(ranges, 0.5, known_bounds(convolutional()) | {"pixel_values": (-100.0, 4.0)}))
    narrow = _ends(ranges)
    low, _ = narrow["pixel_values"]
    assert wider["pixel_values"] == pytest.approx((1.5 * low, 4.0))
    assert wider["r2"] == pytest.approx((0.0, 1.5 * narrow["r2"][1]))
    assert wider["r1"][1] == pytest.approx(min(6.0, 1.5 * narrow["r1"][1]))
    assert _ends(ranges) == narrow


def test_the_model_that_is_given_stays_as_it_is(path: Path, ranges: TensorsData) -> None:
    model = onnx.load(path)
    before = model.SerializeToString()
    quantize_convolutions(model, ranges, frozenset({"first"}))
    assert model.SerializeToString() == before


def test_entropy_and_percentile_clip_what_extremes_keep(path: Path) -> None:
    outlying = pictures(8)
    outlying[3][0, :, 5, 5] = 40.0
    reaches = {kind: _reach(path, outlying, kind) for kind in ("minmax", "percentile", "entropy")}
    assert reaches["entropy"] < 0.95 * reaches["minmax"]
    assert reaches["percentile"] <= reaches["minmax"]


def test_calibrating_prints_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_ranges(onnx.load(path), fed(pictures(2)), "entropy")
    assert capsys.readouterr().out == ""


def _extremes(ranges: TensorsData) -> dict[str, list[float]]:
    return {name: [float(np.ravel(value)[0]) for value in ranges[name].range_value] for name in ranges.data}


def _ends(ranges: TensorsData) -> dict[str, tuple[float, ...]]:
    return {name: tuple(ends) for name, ends in _extremes(ranges).items()}


def _reach(path: Path, images: list[np.ndarray], kind: str) -> float:
    found = record_ranges(onnx.load(path), fed(images), kind)["pixel_values"]  # type: ignore[arg-type]
    return float(np.ravel(found.range_value[1])[0])
