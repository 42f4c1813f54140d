"""Nodes of an ONNX graph under construction. Values are known by their names; equal constants are kept once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL


class Nodes:
    """The nodes of one graph, or of a branch or loop inside it, which sees the values and constants around it."""

    def __init__(self, around: Nodes | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self._numbers: Iterator[int] = around._numbers if around else count()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = around._constants if around else {}
        self.initializers: list[TensorProto] = around.initializers if around else []

    def __call__(self, op: str, *inputs: str, **attributes: int | Sequence[int] | GraphProto) -> str:
        """Add a node and return the name of its output."""
        return self._add(op, inputs, 1, **attributes)[0]

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Cut a value into equal parts along one axis."""
        return [value] if parts == 1 else self._add("Split", (value,), parts, axis=axis)

    def ints(self, value: ArrayLike) -> str:
        """Return a constant int64."""
        return self._constant(np.array(value, np.int64))

    def floats(self, value: ArrayLike) -> str:
        """Return a constant float32."""
        return self._constant(np.array(value, np.float32))

    def doubles(self, value: ArrayLike) -> str:
        """Return a constant float64."""
        return self._constant(np.array(value, np.float64))

    def named(self, name: str, value: ArrayLike) -> str:
        """Return a constant float32 that goes by a name of its own."""
        self.initializers.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def name(self) -> str:
        """Return a name that nothing else has."""
        return f"v{next(self._numbers)}"

    def rename(self, value: str, name: str) -> None:
        """Give the output of a node another name, before any other node takes it."""
        (node,) = (node for node in self.nodes if value in node.output)
        node.output[list(node.output).index(value)] = name

    def graph(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        """Return the graph of a branch or a loop's body: the constants stay in the graph around it."""
        return helper.make_graph(self.nodes, name, inputs, outputs)

    def _add(
        self, op: str, inputs: Sequence[str], outputs: int, **attributes: int | Sequence[int] | GraphProto
    ) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        node = helper.make_node(op, inputs, names)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return names

    def _constant(self, value: NDArray[np.generic]) -> str:
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"c{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]


def info(name: str, element: int, shape: Sequence[int | str | None] | None = None) -> ValueInfoProto:
    """Describe an input or an output of a graph; None stands for what is not known before the run."""
    return helper.make_tensor_value_info(name, element, shape)
