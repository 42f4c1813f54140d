"""Towers to ONNX files: traced, or written as they are where they were ONNX already."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
import torch

from mmalign.dual_model import ModelGraph, ModelTower
from mmalign.towers.text import first_line
from mmalign_export.errors import ExportError
from mmalign_export.onnx_backbone import OnnxBackbone
from mmalign_export.onnx_file import LARGEST_FILE_BYTES, opset_of, write_onnx
from mmalign_export.rewrite.pooled_row import take_pooled_row_early

OPSET_VERSION = 18
# torch's exporter implements its operators from opset 18 on, and writes 18 whatever older one it is asked for. Above 25
# onnxscript 0.7 leaves the conversion to onnx, which stays at 18 where it has no rule for an operator.
OLDEST_OPSET, NEWEST_OPSET = 18, 25


def export_onnx(
    tower: ModelTower | ModelGraph,
    path: Path,
    opset_version: int = OPSET_VERSION,
    largest_file_bytes: int = LARGEST_FILE_BYTES,
) -> int:
    """Write a tower or another graph as an ONNX file, its axes dynamic, and return the opset that it came out with.

    That is the one asked for, and of a tower that was an ONNX file already the one it has. Weights that would make the
    file larger than `largest_file_bytes` go into `external_name` beside it. Raises ExportError when the tower cannot be
    traced or written with that opset.
    """
    check_opset(opset_version)
    backbone = tower.backbone if isinstance(tower, ModelTower) else None
    own = backbone.graph if isinstance(backbone, OnnxBackbone) else None
    graph = _trace(tower, opset_version) if own is None else own
    written = opset_of(graph)
    if own is None and written != opset_version:
        raise ExportError(
            f"{path.name} came out with opset {written}, not {opset_version} as asked: torch has no way to write this "
            f"tower so. Ask for opset {OPSET_VERSION}, the default."
        )
    try:
        write_onnx(graph, path, largest_file_bytes)
    except onnx.checker.ValidationError as error:
        reason = f"{path.name} is not valid with opset {opset_version}: {error}"
        raise ExportError(f"{reason}. Ask for opset {OPSET_VERSION}, the default.") from error
    return written


def check_opset(opset_version: int) -> None:
    """Raise ExportError for an opset that towers cannot be written with."""
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if not OLDEST_OPSET <= opset_version <= newest:
        raise ExportError(
            f"towers cannot be written with ONNX opset {opset_version}; expected {OLDEST_OPSET} to {newest}. "
            f"Opset {OPSET_VERSION}, the default, is the one that most tools read."
        )


def _trace(tower: ModelTower | ModelGraph, opset_version: int) -> onnx_ir.Model:
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
            f"the tower of {tower.output_name} cannot be written as ONNX: {first_line(cause)} Take what "
            "torch.export cannot trace out of its forward (a branch on values), or use another tower."
        ) from error
    if program is None:
        raise ExportError(f"torch.onnx.export gave no program for {tower.output_name}.")
    take_pooled_row_early(program.model)
    return program.model
