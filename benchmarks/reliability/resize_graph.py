"""The preprocessing graph of format 1 bundles, of the operator `Resize`: what the portable graph is timed against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mmalign_runtime.spec import ImageSpec

# Resize has `antialias` since opset 18, which is also the oldest that every current runtime reads.
_OPSET = 18
# Opset 18 came with IR version 8; newer writers would stamp their own and shut older runtimes out.
_IR_VERSION = 8
# Keys' cubic with a = -0.5, as Pillow's BICUBIC; ONNX defaults to -0.75.
_PILLOW_CUBIC_COEFF = -0.5
_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def build_resize_graph(spec: ImageSpec) -> onnx.ModelProto:
    """Return the graph `pixels` (H, W, 3) uint8 RGB -> `pixel_values` (1, 3, S, S) float32 for one image spec."""
    nodes: list[NodeProto] = [
        helper.make_node("Transpose", ["pixels"], ["chw"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["chw", "axis_0"], ["nchw"]),  # (1, 3, H, W)
        *(_squash() if spec.resize == "squash" else _shortest_edge()),
        _resize(spec),
        *([] if spec.resize == "squash" else _center_crop()),
        *_normalise("resized" if spec.resize == "squash" else "cropped"),
    ]
    graph = helper.make_graph(
        nodes,
        "image_preprocess",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, spec.size, spec.size])],
        initializer=_constants(spec),
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mmalign")
    onnx.checker.check_model(model, full_check=True)
    return model


def _resize(spec: ImageSpec) -> NodeProto:
    return helper.make_node(
        "Resize",
        ["nchw", "", "", "new_sizes"],
        ["resized"],
        mode=_MODES[spec.interpolation],
        antialias=1,
        exclude_outside=1,
        cubic_coeff_a=_PILLOW_CUBIC_COEFF,
        coordinate_transformation_mode="half_pixel",
    )


def _squash() -> list[NodeProto]:
    return [helper.make_node("Identity", ["squash_sizes"], ["new_sizes"])]


def _shortest_edge() -> list[NodeProto]:
    """The shorter side becomes the edge; the longer keeps the ratio, rounded down to a pixel as in torchvision."""
    return [
        helper.make_node("Shape", ["nchw"], ["sides"], start=2, end=4),  # (H, W)
        helper.make_node("ReduceMin", ["sides"], ["short_side"], keepdims=1),
        helper.make_node("Mul", ["sides", "edge"], ["scaled"]),
        helper.make_node("Div", ["scaled", "short_side"], ["new_sides"]),  # int64: floor for positive numbers
        helper.make_node("Concat", ["batch_and_channels", "new_sides"], ["new_sizes"], axis=0),
    ]


def _center_crop() -> list[NodeProto]:
    """The crop starts at half the margin, rounded half to even as Python's round does in torchvision."""
    return [
        helper.make_node("Sub", ["new_sides", "crop_sides"], ["margins"]),
        helper.make_node("Cast", ["margins"], ["margins_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["margins_float", "half"], ["half_margins"]),
        helper.make_node("Round", ["half_margins"], ["starts_float"]),
        helper.make_node("Cast", ["starts_float"], ["starts"], to=TensorProto.INT64),
        helper.make_node("Add", ["starts", "crop_sides"], ["ends"]),
        helper.make_node("Slice", ["resized", "starts", "ends", "side_axes"], ["cropped"]),
    ]


def _normalise(pixels: str) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [pixels], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["levels", "scale"], ["scaled_levels"]),
        helper.make_node("Add", ["scaled_levels", "shift"], ["pixel_values"]),
    ]


def _constants(spec: ImageSpec) -> list[TensorProto]:
    # (x / 255 - mean) / std as one multiplication and one addition.
    scale = 1.0 / (255.0 * np.array(spec.std, np.float64))
    shift = -np.array(spec.mean, np.float64) / np.array(spec.std, np.float64)
    floats = {"scale": scale.reshape(1, 3, 1, 1), "shift": shift.reshape(1, 3, 1, 1)}
    integers: dict[str, Sequence[int]] = {"axis_0": [0]}
    if spec.resize == "squash":
        integers["squash_sizes"] = [1, 3, spec.size, spec.size]
    else:
        floats["half"] = np.array(0.5)
        integers |= {"edge": [spec.shortest_edge], "batch_and_channels": [1, 3], "side_axes": [2, 3]}
        integers["crop_sides"] = [spec.size, spec.size]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in floats.items()]
    return tensors + [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
