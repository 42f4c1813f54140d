"""Convolutional towers in eight bits, by onnxruntime's static quantizer.

Weights are signed and per channel, activations unsigned: signed by signed takes onnxruntime's slow way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

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
_OPERATORS = ["Conv", "Relu", "Clip", "Add", "MaxPool", "GlobalAveragePool", "Gemm"]


def record_ranges(model_path: Path, input_name: str, images: Sequence[NDArray[np.float32]], kind: Range) -> TensorsData:
    """Run the model on prepared images, (1, 3, S, S) each, and return the range of every activation."""
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            model_path,
            _OPERATORS,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_METHODS[kind],
            extra_options={"symmetric": False, **_OPTIONS[kind]},
        )
        with redirect_stdout(StringIO()):  # it prints what it is doing, and the command's output may be JSON
            calibrator.collect_data(_Images(input_name, images))
            found = calibrator.compute_data()
        del calibrator  # its session maps the file
    assert isinstance(found, TensorsData)
    return found


def quantize_convolutions(model: ModelProto, ranges: TensorsData, excluded: frozenset[str]) -> ModelProto:
    """Return the model in eight bits, all but the `excluded` nodes."""
    source = ModelProto()
    source.CopyFrom(model)  # the quantizer works in place
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=deepcopy(ranges),  # widened in place, for this choice of nodes alone
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(excluded),
        op_types_to_quantize=_OPERATORS,
        extra_options={"ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantized: ModelProto = quantizer.model.model
    return quantized


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


def head_nodes(model: ModelProto) -> frozenset[str]:
    """Return the names of the first product behind the last convolution and of all nodes after it: the projection."""
    nodes = list(model.graph.node)
    last = max((at for at, node in enumerate(nodes) if node.op_type == "Conv"), default=-1)
    start = next((at for at, node in enumerate(nodes) if at > last and node.op_type == "Gemm"), len(nodes))
    return frozenset(node.name for node in nodes[start:])


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, input_name: str, images: Sequence[NDArray[np.float32]]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.float32]]] = iter([{input_name: image} for image in images])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)
