"""A transformer in onnxruntime's own operators: attention and GELU fused by onnxscript's rules and one more.

Without it, quantized products stand between dozens of small float operators that cost as much as they do. OpenVINO
reads the same operators.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import ModelProto
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions._core import fuse_xformers  # the public name adds the rules for matrices

from mmalign_export.quantization.constants import with_folded_constants

# CLIP's approximation of GELU, x * sigmoid(1.702 x), which onnxscript has no rule for.
_QUICK_GELU_ALPHA = 1.702


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
