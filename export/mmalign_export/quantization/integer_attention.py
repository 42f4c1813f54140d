"""Rewrites packed attention as three products in eight bits, and attention over what they give.

Letters: K features in, N features out.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mmalign_export.quantization.graph import MICROSOFT, array_of
from mmalign_export.quantization.integer_product import Products
from mmalign_export.quantization.sites import Site

_KINDS = ("query", "key", "value")


def replace_attention(products: Products, node: ir.Node, site: Site) -> None:
    """Replace an Attention, its values divided already by what the product behind it wants; float32 where excluded."""
    editor, name = products.editor, site.name
    packed, bias = array_of(node.inputs[1]), array_of(node.inputs[2])  # (K, 3N), (3N,)
    divisor = products.divided.get(name)
    if divisor is not None:
        num_values = len(divisor)
        packed, bias = packed.copy(), bias.copy()
        packed[:, -num_values:] /= divisor
        bias[-num_values:] /= divisor
    if not products.plan.rounds(site):
        node.replace_input_with(1, editor.constant(f"{name}_weight", packed))
        node.replace_input_with(2, editor.constant(f"{name}_bias", bias))
        return
    source = node.inputs[0]
    assert source is not None
    sizes = node.attributes.get_ints("qkv_hidden_sizes") or [len(bias) // 3] * 3
    starts = np.cumsum(np.asarray(sizes))[:2]
    parts = zip(_KINDS, np.split(packed, starts, axis=1), np.split(bias, starts), strict=True)
    heads = [products.add(site, source, part, part_bias, f"{name}_{kind}") for kind, part, part_bias in parts]
    numbers = {key: each.value for key, each in node.attributes.items() if isinstance(each.value, int | float)}
    added = node.inputs[5] if len(node.inputs) > 5 else None
    attended = editor.add("MultiHeadAttention", [*heads, None, None, added], name, MICROSOFT, **numbers)
    editor.replace(node.outputs[0], attended)
