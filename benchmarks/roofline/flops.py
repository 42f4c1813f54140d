"""Counts the multiplications and additions of an ONNX graph: of convolutions and matrix products, the rest is small.

Shapes are not inferred but seen: the graph runs once with the tensors in question as further outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]
Feeds = Mapping[str, NDArray[np.generic]]

# A multiplication and an addition.
_PER_PRODUCT = 2


class GraphCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Operations of one run, by operator, and the bytes of all weights but tables that rows are looked up in."""

    flops: dict[str, int]
    weight_bytes: int

    @property
    def total(self) -> int:
        """All operations of one run."""
        return sum(self.flops.values())


def count(path: Path, feeds: Feeds) -> GraphCost:
    """Return what one run of the graph on `feeds` costs."""
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in _COUNTS]
    shapes = _shapes(model, {name for node in nodes for name in _tensors(node)}, feeds)
    flops: dict[str, int] = {}
    for node in nodes:
        flops[node.op_type] = flops.get(node.op_type, 0) + _PER_PRODUCT * _COUNTS[node.op_type](node, shapes)
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    read = (tensor for tensor in model.graph.initializer if tensor.name not in tables)
    return GraphCost(flops, sum(_num_bytes(tensor) for tensor in read))


def _tensors(node: NodeProto) -> list[str]:
    return [*_operands(node), node.output[0]]


def _operands(node: NodeProto) -> tuple[str, str]:
    # The operators that carry their own scales have them between the operands.
    second = 3 if node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm") else 1
    return node.input[0], node.input[second]


def _convolution(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    kernel = shapes[_operands(node)[1]]  # (out, in / groups, height, width)
    return math.prod(shapes[node.output[0]]) * math.prod(kernel[1:])


def _product(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[_operands(node)[0]][-1]


def _gemm(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[_operands(node)[0]][0 if transposed else -1]


_COUNTS: dict[str, Callable[[NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MatMulNBits": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
    "QGemm": _gemm,
}


def _shapes(model: ModelProto, names: set[str], feeds: Feeds) -> dict[str, Shape]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: value.shape for name, value in feeds.items()}
    there = {output.name for output in model.graph.output}
    watched = sorted(names - shapes.keys())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name not in there)
    options = onnxruntime.SessionOptions()
    # Optimisation would fuse the nodes whose outputs are asked for, or refuse to.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(watched, dict(feeds))
    return shapes | {name: value.shape for name, value in zip(watched, found, strict=True)}


def _num_bytes(tensor: onnx.TensorProto) -> int:
    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
