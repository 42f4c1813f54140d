"""Where a fused transformer multiplies by weights: the sites at which a recipe may compute in integers.

Letters: K features in, N features out.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, attributes_of

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
    editor = GraphEditor(model)
    made_by = {node.output[0]: node for node in editor.nodes}
    return tuple(_site(node, editor, made_by) for node in editor.nodes if is_site(node, editor))


def is_site(node: NodeProto, editor: GraphEditor) -> bool:
    """Whether a node multiplies by a constant matrix, and by nothing that hides the product."""
    if node.op_type not in ("MatMul", "Attention") or not editor.is_constant(node.input[1]):
        return False
    if editor.value(node.input[1]).ndim != 2:
        return False
    return _comes_apart(node, editor) if node.op_type == "Attention" else node.domain == ""


def _comes_apart(node: NodeProto, editor: GraphEditor) -> bool:
    """Whether an Attention is three products and MultiHeadAttention over them: no mask of lengths, no past, not causal
    but by a bias that is added to it."""
    bias, mask, past, _, length = [*node.input[2:], *[""] * 5][:5]
    known = set(attributes_of(node)) <= _KNOWN_ATTRIBUTES
    return node.domain == MICROSOFT and editor.is_constant(bias) and known and not (mask or past or length)


def weights_of(editor: GraphEditor, site: Site) -> NDArray[np.float32]:
    """Return a site's (K, N) float32."""
    return editor.value(site.weight)


def _site(node: NodeProto, editor: GraphEditor, made_by: dict[str, NodeProto]) -> Site:
    source, weight = node.input[0], node.input[1]
    maker = made_by.get(source)
    operator = maker.op_type if maker is not None else ""
    role: Role = "other"
    source_site = None
    if node.op_type == "Attention":
        role = "qkv"
    elif operator == "Attention":
        role = "mixed"
        if maker is not None and is_site(maker, editor) and editor.num_uses(source) == 1:
            source_site = source
    elif operator in _GELUS:
        role = "down"
    elif any(_feeds(node, other) for other in made_by.values()):
        role = "up"
    return Site(node.output[0], role, source, weight, source_site)


def _feeds(node: NodeProto, other: NodeProto) -> bool:
    return other.op_type in _GELUS and node.output[0] in other.input
