"""An ONNX graph that is rewritten in place, as onnx_ir holds it, and a transformer's in onnxruntime's own operators.

Attention and GELU are fused by onnxscript's rules and one more. Without it, quantized products stand between dozens of
small float operators that cost as much as they do. OpenVINO reads the same operators. Before and after, what a graph
makes of constants alone by moving them is computed, so that every weight is a constant: onnxscript folds most, and none
of several outputs (the packed weights of an attention that are split in the graph), and its fusions pack the weights of
an attention again, by nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions._core import fuse_xformers  # the public name adds the rules for matrices

MICROSOFT = "com.microsoft"
_AXES_ARE_INPUTS = 18
_MOVES = frozenset({"Constant", "Split", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Reshape", "Identity"})
# CLIP's approximation of GELU, x * sigmoid(1.702 x), which onnxscript has no rule for.
_QUICK_GELU_ALPHA = 1.702


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


def with_folded_constants(model: ModelProto) -> ModelProto:
    """Return the model with the results of moves of constants, and of Constant nodes, as initializers."""
    folded = deepcopy(model)
    constants = {tensor.name: tensor for tensor in folded.graph.initializer}
    kept: list[NodeProto] = []
    for node in folded.graph.node:
        if node.op_type in _MOVES and not node.domain and all(name in constants for name in node.input if name):
            constants |= _computed(folded, node, constants)
        else:
            kept.append(NodeProto.FromString(node.SerializeToString()))
    del folded.graph.node[:]
    folded.graph.node.extend(kept)
    read = {name for node in kept for name in node.input} | {output.name for output in folded.graph.output}
    del folded.graph.initializer[:]
    folded.graph.initializer.extend(tensor for name, tensor in constants.items() if name in read)
    return folded


def _computed(model: ModelProto, node: NodeProto, constants: dict[str, TensorProto]) -> dict[str, TensorProto]:
    evaluator = ReferenceEvaluator(node, opsets={entry.domain: entry.version for entry in model.opset_import})
    values = evaluator.run(None, {name: numpy_helper.to_array(constants[name]) for name in node.input if name})
    return {name: numpy_helper.from_array(value, name) for name, value in zip(node.output, values, strict=True)}


def _quick_gelu(op, x):  # type: ignore[no-untyped-def]
    return op.Mul(x, op.Sigmoid(op.Mul(x, _QUICK_GELU_ALPHA)))


def _fused_quick_gelu(op, x):  # type: ignore[no-untyped-def]
    return op.QuickGelu(x, alpha=_QUICK_GELU_ALPHA, _domain="com.microsoft")


def fuse_transformer(model: ModelProto) -> ModelProto:
    """Return the model with com.microsoft Attention, Gelu, QuickGelu and SkipLayerNormalization where rules match.

    onnxscript's rules for matrices are left out (its 0.7.2 moves a batch axis into a product that onnxruntime then
    refuses): they gain nothing, and hide products by weights.
    """
    source = ir.from_proto(with_folded_constants(model))
    rule = pattern.RewriteRule(_quick_gelu, _fused_quick_gelu)
    pattern.RewriteRuleSet([rule], commute=True).apply_to_model(source)
    fused, _ = fuse_xformers(source)
    return with_folded_constants(ir.to_proto(fused))  # those of attention were packed by nodes
