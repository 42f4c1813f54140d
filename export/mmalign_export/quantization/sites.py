"""Where a fused transformer multiplies by weights: the sites at which a recipe may compute in integers.

Letters: K features in, N features out.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import onnx_ir as ir
from onnx import ModelProto

from mmalign_export.quantization.graph import MICROSOFT, is_constant, num_uses

# "qkv" makes queries, keys and values; "mixed" follows attention; "up" and "down" are the feed-forward network's.
Role = Literal["qkv", "mixed", "up", "down", "other"]

_KNOWN_ATTRIBUTES = frozenset({"num_heads", "scale", "qkv_hidden_sizes"})
_GELUS = frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu"})


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
