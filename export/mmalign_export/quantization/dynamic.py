"""Plain dynamic eight bits, as onnxruntime's quantize_dynamic makes it: measured, and never offered.

It takes one scale over the whole batch, so a vector moves when its batch-mates change.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from mmalign_export.quantization.weight_levels import largest_level
from mmalign_runtime.engine.eight_bits import SEVEN_BITS


def quantize_dynamically(model: ModelProto) -> ModelProto:
    """Return the model with dynamically rounded products."""
    with tempfile.TemporaryDirectory() as folder, _without_hint():
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=largest_level() == SEVEN_BITS,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


@contextmanager
def _without_hint() -> Iterator[None]:
    """Keep back what onnxruntime advises through the root logger, to prepare a graph: the exporter has done so."""
    root = logging.getLogger()
    root.addFilter(_is_no_hint)
    try:
        yield
    finally:
        root.removeFilter(_is_no_hint)


def _is_no_hint(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
