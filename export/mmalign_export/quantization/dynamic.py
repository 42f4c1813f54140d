"""Plain dynamic eight bits, as onnxruntime's quantize_dynamic makes it: measured, and never offered.

It takes one scale over the whole batch, so a vector moves when its batch-mates change.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from mmalign_export.quantization.weight_levels import largest_level
from mmalign_runtime.engine.eight_bits import SEVEN_BITS


def quantize_dynamically(model: ModelProto) -> ModelProto:
    """Return the model with dynamically rounded products."""
    prepared = ModelProto()
    prepared.CopyFrom(model)
    add_pre_process_metadata(prepared)  # as the exporter has done, or onnxruntime advises it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=largest_level() == SEVEN_BITS,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)
