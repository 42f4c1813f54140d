"""Rewrites a fused transformer so that its products run in eight bits: one rule a file.

Signs matter: onnxruntime multiplies unsigned by signed bytes with the processor's own instructions, and signed by
signed fifty times slower. Scales of activations are fixed beforehand ("static"), or made from each token alone
("token"): neither looks at another item, so no vector depends on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from mmalign_export.quantization.activations import Activations
from mmalign_export.quantization.graph import GraphEditor
from mmalign_export.quantization.integer_attention import replace_attention
from mmalign_export.quantization.integer_product import IntegerPlan, Products, replace_product
from mmalign_export.quantization.rounding import ColumnRounder
from mmalign_export.quantization.sites import Site
from mmalign_export.quantization.skips import is_simple_skip, take_apart


def to_integers(
    fused: ModelProto,
    sites: tuple[Site, ...],
    activations: Mapping[str, Activations],
    plan: IntegerPlan,
    columns: ColumnRounder | None = None,
) -> ModelProto:
    """Return the model with every product that is not excluded in eight bits; `columns` may know its weights."""
    editor = GraphEditor(fused)
    products = Products(editor, sites, activations, plan, columns or ColumnRounder(activations))
    by_name = {site.name: site for site in sites}
    for node in list(editor.graph):
        editor.at = node
        site = by_name.get(str(node.outputs[0].name))
        if node.op_type == "Attention" and site is not None:
            replace_attention(products, node, site)
        elif site is not None and plan.rounds(site):
            replace_product(products, node, site)
        elif is_simple_skip(node):
            take_apart(editor, node)
    return editor.build()
