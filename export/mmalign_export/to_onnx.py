"""Towers to ONNX files."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
import torch

from mmalign.dual_model import ModelTower
from mmalign.text import first_line
from mmalign_export.errors import ExportError

OPSET_VERSION = 18
# torch's exporter implements its operators from opset 18 on, and writes 18 whatever older one it is asked for. Above 25
# onnxscript 0.7 leaves the conversion to onnx, which stays at 18 where it has no rule for an operator.
OLDEST_OPSET, NEWEST_OPSET = 18, 25
# What protobuf can write and read as one message. Weights that leave less than a hundredth of it for nodes and names
# go into a file beside the model, but for those that would cost more there than they save.
LARGEST_FILE_BYTES = 2**31 - 1
_MOST_WEIGHTS = 0.99
_KEPT_INSIDE_BYTES = 1023
# What Hugging Face calls such a file: onnx/model.onnx_data.
_WEIGHTS_SUFFIX = "_data"


def external_name(name: str) -> str:
    """Return the name of the file that a model's weights lie in where they are too large for its own."""
    return name + _WEIGHTS_SUFFIX


def export_onnx(
    tower: ModelTower,
    path: Path,
    opset_version: int = OPSET_VERSION,
    largest_file_bytes: int = LARGEST_FILE_BYTES,
) -> None:
    """Write one tower as an ONNX file of that opset, batch (and length) dynamic.

    Weights that would make the file larger than `largest_file_bytes` go into `external_name` beside it. Raises
    ExportError when the tower cannot be traced or written with that opset.
    """
    check_opset(opset_version)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = _to_proto(_trace(tower, opset_version), path, largest_file_bytes)
    written = [entry.version for entry in model.opset_import if entry.domain == ""]
    if written != [opset_version]:
        raise ExportError(
            f"{path.name} came out with opset {written}, not {opset_version} as asked: torch has no way to write this "
            f"tower so. Ask for opset {OPSET_VERSION}, the default."
        )
    # torch stamps IR version 10 on all of them, which shuts out older readers of 18 and is too low for 23.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    _forget_origin(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(path)  # of the file: what is in memory knows nothing of weights beside it
    except onnx.checker.ValidationError as error:
        reason = f"{path.name} is not valid with opset {opset_version}: {error}"
        raise ExportError(f"{reason}. Ask for opset {OPSET_VERSION}, the default.") from error


def _to_proto(program: torch.onnx.ONNXProgram, path: Path, largest_file_bytes: int) -> onnx.ModelProto:
    """Return the model as protobuf; weights too large for it are written to their file, one tensor after the other."""
    weights = (value.const_value for value in program.model.graph.initializers.values())
    if sum(each.nbytes for each in weights if each is not None) <= _MOST_WEIGHTS * largest_file_bytes:
        return program.model_proto
    onnx_ir.save(program.model, path, external_data=external_name(path.name), size_threshold_bytes=_KEPT_INSIDE_BYTES)
    return onnx.load(path, load_external_data=False)


def check_opset(opset_version: int) -> None:
    """Raise ExportError for an opset that towers cannot be written with."""
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if not OLDEST_OPSET <= opset_version <= newest:
        raise ExportError(
            f"towers cannot be written with ONNX opset {opset_version}; expected {OLDEST_OPSET} to {newest}. "
            f"Opset {OPSET_VERSION}, the default, is the one that most tools read."
        )


def _trace(tower: ModelTower, opset_version: int) -> torch.onnx.ONNXProgram:
    example = tower.example()
    try:
        with torch.inference_mode():
            program = torch.onnx.export(
                tower.module,
                example.inputs,
                dynamo=True,
                dynamic_shapes=(example.dynamic_shapes,),
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
