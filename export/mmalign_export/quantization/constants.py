"""Computes what a graph makes of constants alone by moving them, so that every weight is a constant.

onnxscript folds most, and none of several outputs: the packed weights of an attention that are split in the graph.
"""

from __future__ import annotations

from copy import deepcopy

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

_MOVES = frozenset({"Constant", "Split", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Reshape", "Identity"})


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
