"""Towers to ONNX files."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from mmalign.text import first_line
from mmalign_export.errors import ExportError
from mmalign_export.towers import TracedTower

OPSET_VERSION = 18
# Above 2 GB protobuf cannot hold the weights, and onnxruntime refuses symlinked files beside the model.
_LARGEST_FILE_BYTES = 2**31 - 1


def export_onnx(tower: TracedTower, path: Path, opset_version: int = OPSET_VERSION) -> None:
    """Write one tower as a self-contained ONNX file, batch (and length) dynamic.

    Raises ExportError when the tower cannot be traced, or its weights do not fit one file.
    """
    model = _trace(tower, opset_version).model_proto
    _forget_origin(model)
    if model.ByteSize() > _LARGEST_FILE_BYTES:
        raise ExportError(
            f"{path.name} would be {model.ByteSize()} bytes; at most {_LARGEST_FILE_BYTES} fit one ONNX file."
        )
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _trace(tower: TracedTower, opset_version: int) -> torch.onnx.ONNXProgram:
    try:
        with torch.inference_mode():
            program = torch.onnx.export(
                tower.module,
                tower.examples,
                dynamo=True,
                dynamic_shapes=tower.dynamic_shapes,
                input_names=list(tower.input_names),
                output_names=[tower.output_name],
                opset_version=opset_version,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ExportError(
            f"the tower of {tower.output_name} cannot be written as ONNX: {first_line(cause)} Train with another tower."
        ) from error
    if program is None:
        raise ExportError(f"torch.onnx.export gave no program for {tower.output_name}.")
    return program


def _forget_origin(model: onnx.ModelProto) -> None:
    """Take out what torch notes beside every node and value: source lines, with the paths of the exporting machine."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
