"""Biases make up for the mean that rounding adds, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from mmalign_export.quantization.convolutions import (
    quantize_convolutions,
    record_means,
    record_ranges,
    rounded_weight,
    with_corrected_biases,
)
from tests.export.quantization.tiny_models import constant, convolutional, fed, graph_model, observe, pictures
from tests.tolerances import FEATURES

WHOLE: frozenset[str] = frozenset()


def grouped(*, bias: bool = True) -> ModelProto:
    """Two groups of two channels each, one pixel a kernel; x (B, 4, 1, 1) -> y (B, 2, 1, 1)."""
    constants: dict[str, NDArray[np.generic]] = {
        "w": np.array([[127, 0.25], [127, -0.4]], np.float32)[:, :, None, None],
        "b": np.array([1, 2], np.float32),
    }
    node = helper.make_node("Conv", ["x", "w", "b"][: 3 if bias else 2], ["y"], "grouped", group=2)
    return graph_model([node], constants, {"x": ["B", 4, 1, 1], "y": ["B", 2, 1, 1]})


@pytest.mark.parametrize("bias", [True, False])
def test_the_shift_by_hand(bias: bool) -> None:
    # A step is 1: 0.25 and -0.4 become 0, so the channels lose 0.25 * 20 and -0.4 * 40.
    means = {"x": np.array([10, 20, 30, 40], np.float32)}
    model = with_corrected_biases(grouped(bias=bias), means, WHOLE)
    before = np.array([1, 2]) if bias else np.zeros(2)
    np.testing.assert_allclose(
        constant(model, model.graph.node[0].input[2]), [before[0] + 5, before[1] - 16], rtol=1e-6
    )


def test_weights_are_rounded_as_the_quantizer_rounds_them(tmp_path: Path) -> None:
    onnx.save(convolutional(), tmp_path / "model.onnx")
    ranges = record_ranges(convolutional(), fed(pictures(2)), "minmax")
    model = quantize_convolutions(convolutional(), ranges, WHOLE)
    makers = {output: node for node in model.graph.node for output in node.output}
    for name, weight in (("first", "w1"), ("depthwise", "w2")):
        (node,) = (node for node in model.graph.node if node.name == name)
        kept = makers[node.input[1]]
        levels, steps = constant(model, kept.input[0]), constant(model, kept.input[1])
        expected = levels.astype(np.float32) * steps.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(rounded_weight(constant(convolutional(), weight)), expected, rtol=1e-6)


def test_a_channel_of_zeros_stays_one() -> None:
    assert not rounded_weight(np.zeros((2, 3, 1, 1), np.float32)).any()


def test_means_are_of_every_image_and_channel(tmp_path: Path) -> None:
    onnx.save(convolutional(), tmp_path / "model.onnx")
    images = pictures(3)
    means = record_means(onnx.load(tmp_path / "model.onnx"), fed(images))
    assert means.keys() == {"pixel_values", "r1"}
    (inner,) = observe(convolutional(), ["r1"], {"pixel_values": np.concatenate(images)})
    np.testing.assert_allclose(means["r1"], inner.mean(axis=(0, 2, 3)), atol=FEATURES.bound)


def test_corrected_channels_keep_their_means(tmp_path: Path) -> None:
    onnx.save(convolutional(), tmp_path / "model.onnx")
    images = pictures(8)
    ranges = record_ranges(onnx.load(tmp_path / "model.onnx"), fed(images), "minmax")
    corrected = with_corrected_biases(
        convolutional(), record_means(onnx.load(tmp_path / "model.onnx"), fed(images)), WHOLE
    )
    feeds = {"pixel_values": np.concatenate(images)}
    (expected,) = observe(convolutional(), ["r2"], feeds)
    off = []
    for model in (convolutional(), corrected):
        (found,) = observe(quantize_convolutions(model, ranges, WHOLE), ["r2_DequantizeLinear_Output"], feeds)
        off.append(np.abs((found - expected).mean(axis=(0, 2, 3))).sum())
    assert off[1] < 0.8 * off[0], off  # 0.74: rounding what flows through shifts channels too


def test_a_layer_that_stays_in_float32_keeps_its_bias() -> None:
    means = {"pixel_values": np.ones(3, np.float32), "r1": np.ones(8, np.float32)}
    model = with_corrected_biases(convolutional(), means, frozenset({"first"}))
    biases = {node.name: node.input[2] for node in model.graph.node if node.op_type == "Conv"}
    assert biases == {"first": "b1", "depthwise": "c2_corrected_bias"}
