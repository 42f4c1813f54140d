"""Weights alone in 8 or 4 bits by block (MatMulNBits).

It halves and quarters the file more than it saves time; no calibration is needed, and no vector depends on its batch.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

from onnx import ModelProto
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

# One scale for so many weights of a column; accuracy level 4 multiplies in eight bits where the processor can.
_BLOCK_SIZE = 32
_INT8_PRODUCTS = 4


def quantize_weights(model: ModelProto, bits: Literal[4, 8], excluded: frozenset[str]) -> ModelProto:
    """Return the model with the constant matrix of each MatMul in `bits` bits, all but the `excluded` nodes."""
    source = deepcopy(model)  # the quantizer works in place
    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK_SIZE,
        is_symmetric=True,
        accuracy_level=_INT8_PRODUCTS,
        quant_format=QuantFormat.QOperator,
        bits=bits,
    )
    quantizer = MatMulNBitsQuantizer(source, nodes_to_exclude=sorted(excluded), algo_config=config)
    quantizer.process()
    quantized: ModelProto = quantizer.model.model
    return quantized
