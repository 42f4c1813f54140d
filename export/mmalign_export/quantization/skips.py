"""Rewrites onnxruntime's SkipLayerNormalization as a sum and a normalization: fused it takes five times as long."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mmalign_export.quantization.graph import GraphEditor, array_of, is_constant, num_uses

# What SkipLayerNormalization adds to the variance unless it says otherwise.
_EPSILON = 1e-12
# Its inputs are source, skip, weight, bias, and one that is added to the source; its outputs end with the sum.
_ADDED, _SUM = 4, 3


def is_simple_skip(node: ir.Node) -> bool:
    """Whether a node is one whose mean and deviation nobody reads."""
    return node.op_type == "SkipLayerNormalization" and not any(num_uses(each) for each in node.outputs[1:_SUM])


def take_bias(product: ir.Value) -> NDArray[np.float32] | None:
    """Take off a skip the bias that it adds to a product alone, and return it: the product adds it for nothing."""
    if num_uses(product) != 1 or not product.uses():
        return None
    ((skip, position),) = product.uses()
    if position != 0 or not is_simple_skip(skip) or len(skip.inputs) <= _ADDED or not is_constant(skip.inputs[_ADDED]):
        return None
    bias = array_of(skip.inputs[_ADDED])
    skip.replace_input_with(_ADDED, None)
    return bias


def take_apart(editor: GraphEditor, node: ir.Node) -> None:
    """Put a sum and a normalization in the place of a skip."""
    output = node.outputs[0]
    source, skip, weight, bias, late = [*node.inputs, None, None][:5]
    if late is not None:
        source = editor.add("Add", [source, late], f"{output.name}_biased")
    passed_on = [each for each in node.outputs[_SUM:] if each.name]
    total = editor.add("Add", [source, skip], str(passed_on[0].name) if passed_on else f"{output.name}_sum")
    for each in passed_on:
        editor.replace(each, total)
    epsilon = node.attributes.get_float("epsilon", _EPSILON)
    inputs = [total, weight, *([bias] if bias is not None else [])]
    editor.replace(output, editor.add("LayerNormalization", inputs, str(output.name), axis=-1, epsilon=epsilon))
