"""The inputs and the output of a bundle's tower, put on another library's graph. Numbers stay the same.

Inputs get the names and types of the bundle, outputs that are not the vector go with what computes them alone, and the
vector is divided by its length.
Shapes: B batch, L tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

# Of what computes nothing that a vector needs.
_CLEANING: tuple[Callable[[], ir.passes.InPlacePass], ...] = (
    passes.RemoveInitializersFromInputsPass,
    passes.RemoveUnusedNodesPass,
    passes.RemoveUnusedFunctionsPass,
    passes.ClearMetadataAndDocStringPass,
)
_LEAST_LENGTH = 1e-12  # as torch's `normalize` has it
# From this opset on the axes of a reduction are an input.
_AXES_ARE_INPUT = 18
INT64 = ir.TensorType(ir.DataType.INT64)


def keep_output(model: ir.Model, name: str, embed_dim: int) -> None:
    """Leave one output (B, D), and what it is computed from, in place."""
    graph = model.graph
    kept = next(value for value in graph.outputs if value.name == name)
    kept.shape = ir.Shape([None, embed_dim])
    graph.outputs.clear()
    graph.outputs.append(kept)
    for clean in _CLEANING:
        clean()(model)
    for node in graph:  # shapes that were noted with the old names, or the old batch
        for value in node.outputs:
            if value is not kept:
                value.shape = None


def name_inputs(model: ir.Model, names: Mapping[str, str]) -> None:
    """Name inputs, given by their old names, as the bundle does, and let them be (B, ...) in int64 or float32.

    Token types, which no bundle has, become zeros.
    """
    graph = model.graph
    found = {str(value.name): value for value in graph.inputs}
    _free(graph, list(names.values()), list(found.values()))
    renamed = []
    for old, new in names.items():
        value = found[old]
        assert value.shape is not None
        given = ir.Value(name=new, type=value.type, shape=ir.Shape(["batch", *list(value.shape)[1:]]))
        renamed.append((value, given))
    ids = next((given for _, given in renamed if given.name == "input_ids"), None)
    graph.inputs.clear()
    for value, given in renamed:
        used = given
        if given.name == "token_type_ids":
            assert ids is not None, "only a text tower has token types"
            used = _added(graph, "Sub", [ids, ids], f"{given.name}_of_zeros", INT64)
        else:
            graph.inputs.append(given)
        if value.dtype == ir.DataType.INT32:
            given.type = INT64
            used = _added(graph, "Cast", [used], f"{given.name}_int32", value.type, to=int(ir.DataType.INT32))
        ir.convenience.replace_all_uses_with(value, used)
    graph.sort()


def divide_by_length(model: ir.Model, name: str) -> None:
    """Divide the output (B, D) by its length, in place, and name it."""
    graph = model.graph
    (vector,) = graph.outputs
    _free(graph, [name], [])
    if (model.opset_imports.get("") or 0) >= _AXES_ARE_INPUT:
        axes = constant(graph, f"{name}_axes", np.array([-1], np.int64))
        length = ir.node("ReduceL2", [vector, axes], {"keepdims": 1})
    else:
        length = ir.node("ReduceL2", [vector], {"axes": [-1], "keepdims": 1})
    least = constant(graph, f"{name}_least", np.array(_LEAST_LENGTH, np.float32))
    above = ir.node("Max", [length.outputs[0], least])
    divided = ir.node("Div", [vector, above.outputs[0]])
    for node, part in ((length, "length"), (above, "length_above_zero")):
        node.name = node.outputs[0].name = f"{name}_{part}"
    graph.extend([length, above, divided])
    divided.name = divided.outputs[0].name = name
    divided.outputs[0].type, divided.outputs[0].shape = vector.type, ir.Shape(["batch", *list(vector.shape or ())[1:]])
    graph.outputs.clear()
    graph.outputs.append(divided.outputs[0])


def _free(graph: ir.Graph, names: list[str], kept: list[ir.Value]) -> None:
    """Rename what is called as an input or output will be, and is something else."""
    values = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*values, *graph.initializers.values(), *kept]:
        if value.name in names:
            value.name = f"{value.name}_of_source"


def _added(
    graph: ir.Graph, operator: str, inputs: list[ir.Value], name: str, kind: ir.TypeProtocol | None, **attributes: int
) -> ir.Value:
    """Add a node of one output; the graph has to be sorted afterwards."""
    node = ir.node(operator, inputs, attributes, name=name)
    node.outputs[0].name, node.outputs[0].type = name, kind
    graph.append(node)
    return node.outputs[0]


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer to a graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value
