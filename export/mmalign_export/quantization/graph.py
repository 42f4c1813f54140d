"""An ONNX graph that is rewritten in place, as onnx_ir holds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto
from onnx_ir.passes.common import RemoveUnusedNodesPass

MICROSOFT = "com.microsoft"
_AXES_ARE_INPUTS = 18


class GraphEditor:
    """A copy of a model. What is added stands before the node `at`, which whoever rewrites moves along."""

    def __init__(self, model: ModelProto) -> None:
        self._model = ir.from_proto(model)
        self.graph = self._model.graph
        self.at = self.graph[0]

    def constant(self, name: str, value: object) -> ir.Value:
        """Return the constant of a name, added as an array or a number of NumPy where there is none yet."""
        if name not in self.graph.initializers:
            tensor = ir.tensor(np.asarray(value), name=name)
            self.graph.register_initializer(ir.Value(name=name, const_value=tensor))
        return self.graph.initializers[name]

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        output: str,
        domain: str = "",
        **attributes: int | float | list[int],
    ) -> ir.Value:
        """Add a node of one output, and return that output."""
        node = ir.node(operator, inputs, attributes, domain=domain, outputs=[ir.Value(name=output)], name=output)
        self.graph.insert_before(self.at, node)
        return node.outputs[0]

    def largest_of_last_axis(self, source: ir.Value, output: str) -> ir.Value:
        """Add a ReduceMax that keeps the axis, and return what it gives: before opset 18, axes are an attribute."""
        versions = self.graph.opset_imports
        if versions.get("", versions.get("ai.onnx", 0)) < _AXES_ARE_INPUTS:
            return self.add("ReduceMax", [source], output, axes=[-1], keepdims=1)
        last_axis = self.constant("last_axis", np.array([-1], np.int64))
        return self.add("ReduceMax", [source, last_axis], output, keepdims=1)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads a value, the model's output too, read another one in its place."""
        new.type, new.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def build(self) -> ModelProto:
        """Return the model, without what nobody reads, and without notes of what is between input and output."""
        RemoveUnusedNodesPass()(self._model)
        self.graph.opset_imports.setdefault(MICROSOFT, 1)
        for value in (value for node in self.graph for value in node.outputs if not value.is_graph_output()):
            value.type = value.shape = None
        return ir.to_proto(self._model)


def is_constant(value: ir.Value | None) -> bool:
    """Whether a tensor is known before any input is."""
    return value is not None and value.is_initializer()


def array_of(value: ir.Value | None) -> NDArray[np.float32]:
    """Return a constant's value."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def num_uses(value: ir.Value) -> int:
    """Return how often a tensor is read, an output of the model counted too."""
    return len(value.uses()) + value.is_graph_output()
