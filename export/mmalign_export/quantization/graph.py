"""An ONNX graph that is being rewritten: constants by name, new ones beside them, and what nobody reads any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
# Both are the domain of the standard operators.
_STANDARD = ("", "ai.onnx")
_AXES_ARE_INPUTS = 18


class GraphEditor:
    """Reads a model's `nodes` in order, and takes the nodes and constants of the graph that will replace it."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = [_copy(node) for node in model.graph.node]  # a rewriting may change them in place
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[NodeProto] = []
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._uses.update(output.name for output in model.graph.output)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known before any input is."""
        return name in self._constants

    def value(self, name: str) -> NDArray[np.float32]:
        """Return a constant's value."""
        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def num_uses(self, name: str) -> int:
        """Return how often a tensor is read, an output of the model counted too."""
        return self._uses[name]

    def constant(self, name: str, value: object) -> str:
        """Add a constant, an array or a number of NumPy, and return its name."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(
        self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: int | float | list[int]
    ) -> str:
        """Add a node of one output, and return the output's name."""
        node = helper.make_node(operator, inputs, [output], name=output, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def largest_of_last_axis(self, source: str, output: str) -> str:
        """Add a ReduceMax that keeps the axis, and return the output's name: before opset 18, axes are an attribute."""
        if max(entry.version for entry in self.model.opset_import if entry.domain in _STANDARD) < _AXES_ARE_INPUTS:
            return self.add("ReduceMax", [source], output, axes=[-1], keepdims=1)
        last_axis = self.constant("last_axis", np.array([-1], np.int64))
        return self.add("ReduceMax", [source, last_axis], output, keepdims=1)

    def keep(self, node: NodeProto) -> None:
        """Add a node of the model as it is."""
        self._nodes.append(node)

    def build(self) -> ModelProto:
        """Return the model made of the nodes and constants that were added, those that nobody reads left out."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:]
        del model.graph.initializer[:]
        del model.graph.value_info[:]
        nodes = _read_ones(self._nodes, [output.name for output in model.graph.output])
        read = {name for node in nodes for name in node.input}
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(tensor for name, tensor in self._constants.items() if name in read)
        _import_domain(model, MICROSOFT)
        return model


def attributes_of(node: NodeProto) -> dict[str, object]:
    """Return a node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _copy(node: NodeProto) -> NodeProto:
    copied = NodeProto()
    copied.CopyFrom(node)
    return copied


def _read_ones(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _import_domain(model: ModelProto, domain: str) -> None:
    if domain not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(domain, 1))
