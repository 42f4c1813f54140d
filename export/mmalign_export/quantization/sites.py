"""Where a fused transformer multiplies by weights: the sites at which a recipe may compute in integers.

What stands right behind a product can be part of it: constants that are added to its columns or scale them. A product
in eight bits adds a bias and scales its columns for nothing; as operators of their own, a bias and the layer scale of a
vision transformer each read and write the whole tensor again. onnxruntime's SkipLayerNormalization is taken apart: its
fused kernel takes five times as long on the CPU. Letters: K features in, N features out.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, array_of, is_constant, num_uses

# "qkv" makes queries, keys and values; "mixed" follows attention; "up" and "down" are the feed-forward network's.
Role = Literal["qkv", "mixed", "up", "down", "other"]

_KNOWN_ATTRIBUTES = frozenset({"num_heads", "scale", "qkv_hidden_sizes"})
_GELUS = frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu"})
# What SkipLayerNormalization adds to the variance unless it says otherwise.
_EPSILON = 1e-12
# Its inputs are source, skip, weight, bias, and one that is added to the source; its outputs end with the sum.
_ADDED, _SUM = 4, 3


class Site(msgspec.Struct, frozen=True):
    """One product: the output's name stands for it; `source` is the tensor it multiplies, `weight` (K, N) a constant.

    `source_site` is the site whose value columns reach `source` through attention alone.
    """

    name: str
    role: Role
    source: str
    weight: str
    source_site: str | None = None


def find_sites(model: ModelProto) -> tuple[Site, ...]:
    """Return the products of a fused transformer, in order; the projection's Gemm is left alone, it costs nothing."""
    return tuple(_site(node) for node in ir.from_proto(model).graph if is_site(node))


def is_site(node: ir.Node) -> bool:
    """Whether a node multiplies by a constant matrix, and by nothing that hides the product."""
    if node.op_type not in ("MatMul", "Attention") or not is_constant(node.inputs[1]):
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return False
    return _comes_apart(node) if node.op_type == "Attention" else node.domain == ""


def _comes_apart(node: ir.Node) -> bool:
    """Whether an Attention is three products and MultiHeadAttention over them: no mask of lengths, no past, not causal
    but by a bias that is added to it."""
    bias, mask, past, _, length = [*node.inputs[2:], *[None] * 5][:5]
    known = set(node.attributes) <= _KNOWN_ATTRIBUTES
    return node.domain == MICROSOFT and is_constant(bias) and known and not (mask or past or length)


def _site(node: ir.Node) -> Site:
    (output, *_), (source, weight, *_) = node.outputs, node.inputs
    assert source is not None
    assert weight is not None
    maker = source.producer()
    operator = maker.op_type if maker is not None else ""
    role: Role = "other"
    source_site = None
    if node.op_type == "Attention":
        role = "qkv"
    elif operator == "Attention":
        role = "mixed"
        if maker is not None and is_site(maker) and num_uses(source) == 1:
            source_site = source.name
    elif operator in _GELUS:
        role = "down"
    elif any(reader.op_type in _GELUS for reader in output.consumers()):
        role = "up"
    return Site(str(output.name), role, str(source.name), str(weight.name), source_site)


class Epilogue(msgspec.Struct, frozen=True):
    """`output` = product * scale + bias, both (N,) or None where there is none."""

    output: ir.Value
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


def find_epilogue(product: ir.Value, width: int) -> Epilogue:
    """Return what follows a product of so many columns."""
    found = Epilogue(product)
    while num_uses(found.output) == 1 and found.output.consumers():
        (reader,) = found.output.consumers()
        columns = _columns(reader, found.output, width) if reader.op_type in ("Add", "Mul") else None
        if columns is None:
            break
        found = _extended(found, reader, columns)
    return found


def _extended(found: Epilogue, reader: ir.Node, columns: NDArray[np.float32]) -> Epilogue:
    scale, bias = found.scale, found.bias
    if reader.op_type == "Add":
        bias = columns if bias is None else bias + columns
    else:
        scale = columns if scale is None else scale * columns
        bias = None if bias is None else bias * columns
    return Epilogue(reader.outputs[0], scale, bias)


def _columns(reader: ir.Node, product: ir.Value, width: int) -> NDArray[np.float32] | None:
    """Return the constant that an Add or Mul joins to a product, (N,); None where it does not stand for columns."""
    other = reader.inputs[1] if reader.inputs[0] is product else reader.inputs[0]
    if not is_constant(other):
        return None
    value = array_of(other)
    if value.size not in (1, width) or (value.size == width and value.shape[-1:] != (width,)):
        return None
    # A constant of more dimensions than the product would add some to it.
    return None if value.ndim > 2 else np.broadcast_to(value.reshape(-1), (width,)).astype(np.float32)


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
