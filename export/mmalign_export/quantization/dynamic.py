"""Plain dynamic eight bits by onnxruntime's quantize_dynamic: measured, and never offered.

It takes one scale over the whole batch, so a vector moves when its batch-mates change.
"""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from mmalign_export.quantization.rounding import largest_level
from mmalign_runtime.engine.eight_bits import SEVEN_BITS


def quantize_dynamically(model: ModelProto) -> ModelProto:
    """Return the model with dynamically rounded products."""
    prepared = deepcopy(model)
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
