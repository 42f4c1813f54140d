"""Any batch for a graph that was exported for one item: it runs once for each item, in the graph itself.

What such an export folded into constants (shapes, positions, a class token) cannot be told from what is meant so, and
each item by itself is all that the file was ever run with. ONNX's `Scan` does that on every engine.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mmalign_export.rewrite.onnx_interface import constant


def loop_over_batch(model: ir.Model) -> None:
    """Put the graph into the body of a Scan, in place. Inputs (1, ...) become (B, ...), outputs likewise.

    Weights stay outside, where every reader of the file looks for them.
    """
    graph = model.graph
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    nodes = list(graph)
    graph.remove(nodes)
    items = [ir.Value(name=f"{value.name}_item", type=value.type, shape=_without_batch(value)) for value in inputs]
    one = [
        _reshape(graph, item, [1, *_sides(value)], f"{value.name}_one", value)
        for item, value in zip(items, inputs, strict=True)
    ]
    for value, node in zip(inputs, one, strict=True):
        for user, index in [use for use in value.uses() if use.node in set(nodes)]:
            user.replace_input_with(index, node.outputs[0])
    last = [_reshape(graph, value, _sides(value), f"{value.name}_item", value) for value in outputs]
    body = ir.Graph(
        items,
        [node.outputs[0] for node in last],
        nodes=[*one, *nodes, *last],
        opset_imports=dict(graph.opset_imports),
        name="item",
    )
    scan = ir.node(
        "Scan", inputs, {"body": body, "num_scan_inputs": len(inputs)}, num_outputs=len(outputs), name="each_item"
    )
    graph.append(scan)
    graph.outputs.clear()
    for value, found in zip(outputs, scan.outputs, strict=True):
        found.name, found.type = f"{value.name}_batch", value.type
        found.shape = ir.Shape(["batch", *_without_batch(value)])
        graph.outputs.append(found)
    for value in inputs:
        value.shape = ir.Shape(["batch", *_without_batch(value)])


def _without_batch(value: ir.Value) -> ir.Shape:
    assert value.shape is not None, "inputs and outputs have shapes"
    return ir.Shape(list(value.shape)[1:])


def _sides(value: ir.Value) -> list[int]:
    """Return the sides of one item as Reshape takes them: -1 for the one that may change, a text's length."""
    sides = [side if isinstance(side, int) else -1 for side in _without_batch(value)]
    assert sides.count(-1) <= 1, f"{value.name} has several sides that change: {value.shape}"
    return sides


def _reshape(graph: ir.Graph, value: ir.Value, sides: list[int], name: str, like: ir.Value) -> ir.Node:
    shape = constant(graph, f"{name}_shape", np.array(sides, np.int64))
    found = ir.node("Reshape", [value, shape], name=name)
    found.outputs[0].name, found.outputs[0].type = name, like.type
    found.outputs[0].shape = ir.Shape([None if side == -1 else side for side in sides])
    return found
