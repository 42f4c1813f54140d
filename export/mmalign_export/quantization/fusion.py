"""Fuses a transformer's attention and GELU into onnxruntime's own operators, by onnxscript's rules.

Without it, quantized products stand between dozens of small float operators that cost as much as they do. OpenVINO
reads the same operators.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import ModelProto
from onnxscript.rewriter.ort_fusions import optimize_for_ort


def fuse_transformer(model: ModelProto) -> ModelProto:
    """Return the model with com.microsoft Attention, BiasGelu and SkipLayerNormalization where the rules match."""
    fused, _ = optimize_for_ort(ir.from_proto(model))
    return ir.to_proto(fused)
