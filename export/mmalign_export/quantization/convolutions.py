"""Convolutional towers in eight bits, by onnxruntime's static quantizer, with biases corrected for the rounding.

Weights are signed and per channel, activations unsigned: signed by signed takes onnxruntime's slow way. A channel's
rounding errors do not cancel where its inputs are not centred, as they are not behind a ReLU: the channel is shifted,
for every image alike, and the shift is known beforehand (Nagel et al. 2019, "Data-Free Quantization Through Weight
Equalization and Bias Correction", section 4.2). Letters: C channels in, O channels out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from mmalign_export.quantization.activations import watched
from mmalign_export.quantization.graph import MICROSOFT
from mmalign_export.quantization.rounding import largest_level
from mmalign_runtime.engine.eight_bits import SEVEN_BITS
from mmalign_runtime.engine.session import Feeds

Range = Literal["minmax", "percentile", "entropy"]
# The least and the largest value that a tensor can hold, whatever the image.
Bounds: TypeAlias = tuple[float, float]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# A percentile keeps this share of values, the rest is clipped. Entropy chooses among ranges between the quantized bins
# and all bins: with onnxruntime's own 128 of both there is one to choose, the extremes.
_OPTIONS: dict[Range, dict[str, float]] = {
    "minmax": {},
    "percentile": {"percentile": 99.999},
    "entropy": {"num_bins": 256, "num_quantized_bins": 128},
}
_OPERATORS = ("Conv", "Relu", "Clip", "Add", "MaxPool", "GlobalAveragePool", "Gemm")
_CONVOLVED = frozenset({"Conv", "Relu", "Clip", "MaxPool"})
# What is held at once of the values that a histogram is made of.
_ITEMS_AT_ONCE = 16
# Channels of zeros have no step; whatever stands in its place, they round to zeros.
_LEAST_STEP = np.finfo(np.float32).tiny


def record_ranges(model: ModelProto, items: Sequence[Feeds], kind: Range) -> TensorsData:
    """Run the model on items, one image or text each, and return the range of every activation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            list(_OPERATORS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_METHODS[kind],
            extra_options={"symmetric": False, **_OPTIONS[kind]},
        )
        with redirect_stdout(StringIO()):  # it prints what it is doing, and the command's output may be JSON
            for group in _groups(items):
                calibrator.collect_data(_Items(group))
            found = calibrator.compute_data()
        del calibrator  # its session maps the file
    assert isinstance(found, TensorsData)
    return found


def _groups(items: Sequence[Feeds]) -> Iterator[Sequence[Feeds]]:
    """Yield items of equal shapes, which a histogram joins, a few at a time."""
    ordered = sorted(items, key=_shapes)
    for _, group in groupby(ordered, _shapes):
        alike = list(group)
        yield from (alike[start : start + _ITEMS_AT_ONCE] for start in range(0, len(alike), _ITEMS_AT_ONCE))


def _shapes(feeds: Feeds) -> list[tuple[int, ...]]:
    return [value.shape for value in feeds.values()]


def quantize_convolutions(model: ModelProto, ranges: TensorsData, excluded: frozenset[str]) -> ModelProto:
    """Return the model in eight bits, all but the `excluded` nodes."""
    source = deepcopy(model)  # the quantizer works in place
    _declare_types(source)
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=largest_level() == SEVEN_BITS,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=deepcopy(ranges),  # widened in place, for this choice of nodes alone
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(excluded),
        op_types_to_quantize=list(_OPERATORS),
        extra_options={"ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantized: ModelProto = quantizer.model.model
    return quantized


def _declare_types(model: ModelProto) -> None:
    """Say that fused operators give float32: onnx infers no types behind them, and what has none is not rounded."""
    known = {value.name for value in model.graph.value_info}
    made = (node.output[0] for node in model.graph.node if node.domain == MICROSOFT)
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name not in known
    )


def widened(ranges: TensorsData, margin: float, bounds: Mapping[str, Bounds]) -> TensorsData:
    """Return the ranges, each end `margin` of itself farther from 0, for values that calibration never saw.

    No end goes beyond the tensor's own `bounds`: past them there is nothing to keep.
    """
    wider = deepcopy(ranges)
    for name in wider.data:
        least, most = bounds.get(name, (-np.inf, np.inf))
        low, high = wider[name].range_value
        wider[name].lowest = np.maximum(np.minimum(low, low * (1 + margin)), least).astype(np.float32)
        wider[name].highest = np.minimum(np.maximum(high, high * (1 + margin)), most).astype(np.float32)
    return wider


def known_bounds(model: ModelProto) -> dict[str, Bounds]:
    """Return the bounds that the graph itself sets: those of each Clip's output, and 0 of each Relu's."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, Bounds] = {}
    for node in model.graph.node:
        if node.op_type == "Relu":
            found[node.output[0]] = (0.0, np.inf)
        elif node.op_type == "Clip":
            least, most = (
                float(numpy_helper.to_array(constants[name])) if name in constants else unbounded
                for name, unbounded in zip([*node.input[1:], "", ""][:2], (-np.inf, np.inf), strict=True)
            )
            found[node.output[0]] = (least, most)
    return found


def weighted_nodes(model: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes that carry weights, in order: what a sensitivity scan goes through."""
    return tuple(node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm"))


def patch_nodes(model: ModelProto) -> frozenset[str]:
    """Return the names of the convolutions that cut an input into patches: each pixel is read once, by one of them."""
    inputs = {value.name for value in model.graph.input}
    return frozenset(
        node.name for node in model.graph.node if node.op_type == "Conv" and node.input[0] in inputs and _is_cut(node)
    )


def _is_cut(node: NodeProto) -> bool:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    pads = attributes.get("pads", [])
    is_padded = (isinstance(pads, list) and any(pads)) or attributes.get("auto_pad") in (b"SAME_UPPER", b"SAME_LOWER")
    return attributes.get("kernel_shape") == attributes.get("strides") and not is_padded


def nodes_of_products(model: ModelProto) -> frozenset[str]:
    """Return the names of the sums and projections that do not stand between convolutions alone.

    Beside a transformer's products they belong to these: what passes its layers by does not bear eight bits.
    """
    between = {value.name for value in model.graph.input}
    apart = set()
    for node in model.graph.node:
        if node.op_type in _CONVOLVED or (node.op_type == "Add" and between.issuperset(node.input)):
            between.update(node.output)
        elif node.op_type in ("Add", "Gemm"):
            apart.add(node.name)
    return frozenset(apart)


def head_nodes(model: ModelProto) -> frozenset[str]:
    """Return the names of the first product behind the last convolution and of all nodes after it: the projection."""
    nodes = list(model.graph.node)
    last = max((at for at, node in enumerate(nodes) if node.op_type == "Conv"), default=-1)
    start = next((at for at, node in enumerate(nodes) if at > last and node.op_type == "Gemm"), len(nodes))
    return frozenset(node.name for node in nodes[start:])


class _Items(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, items: Sequence[Feeds]) -> None:
        self._feeds = iter(items)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def record_means(model: ModelProto, items: Sequence[Feeds]) -> dict[str, NDArray[np.float32]]:
    """Run the model on items, one image or text each, and return the channel means, (C,), of what is convolved."""
    convolved = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    names = sorted(convolved - {value.name for value in model.graph.input})
    session = watched(model, names)
    sums: dict[str, NDArray[np.float64]] = {}
    for feeds in items:
        found = dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}
        for name in convolved:
            values = found[name] if name in found else feeds[name]  # (1, C, ...)
            means = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + means
    return {name: (total / len(items)).astype(np.float32) for name, total in sums.items()}


def with_corrected_biases(
    model: ModelProto, means: Mapping[str, NDArray[np.float32]], excluded: frozenset[str]
) -> ModelProto:
    """Return a float model whose biases make up for the rounding to come, of all convolutions but the `excluded`.

    What pads an image at its edges counts as if it had the mean of its channel.
    """
    corrected = deepcopy(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        is_constant = all(name in constants for name in node.input[1:] if name)
        if node.op_type == "Conv" and node.name not in excluded and is_constant:
            shift = _shift(numpy_helper.to_array(constants[node.input[1]]), means[node.input[0]])
            _take_off(corrected, constants, node, shift)
    return corrected


def _shift(weight: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by how much rounding raises each channel's mean, (O,), of weights (O, C / groups, ...)."""
    lost = (rounded_weight(weight) - weight).reshape(*weight.shape[:2], -1).sum(axis=2)  # (O, C / groups)
    num_groups = len(means) // weight.shape[1]
    by_group = means.reshape(num_groups, 1, -1)  # (groups, 1, C / groups)
    shift: NDArray[np.float32] = (lost.reshape(num_groups, -1, weight.shape[1]) * by_group).sum(axis=2).ravel()
    return shift


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights (O, ...) as eight signed bits with a scale a channel keep them."""
    axes = tuple(range(1, weight.ndim))
    step = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / largest_level(), _LEAST_STEP)
    rounded: NDArray[np.float32] = np.round(weight / step) * step
    return rounded


def _take_off(
    model: ModelProto, constants: dict[str, TensorProto], node: NodeProto, shift: NDArray[np.float32]
) -> None:
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = numpy_helper.to_array(constants[node.input[2]]) if has_bias else np.zeros(len(shift), np.float32)
    name = f"{node.output[0]}_corrected_bias"  # of its own: two convolutions may share one
    tensor = numpy_helper.from_array((bias - shift).astype(np.float32), name)
    model.graph.initializer.append(tensor)
    constants[name] = tensor
    del node.input[2:]
    node.input.append(name)
