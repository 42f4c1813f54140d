"""Towers to ONNX files: traced, or written as they are where they were ONNX already.

Weights that are too large for a file lie in one beside it. A tower that is an ONNX graph already stands where a
backbone of PyTorch stands, so that golden cases, proof and parity need to know nothing of it: onnxruntime computes its
vectors, and nothing of it is traced or trained.
Shapes: B batch, D embedding.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from torch import Tensor, nn

from mmalign.dual_model import ModelGraph, ModelTower
from mmalign.towers.text import first_line
from mmalign_export.errors import ExportError
from mmalign_export.rewrite.pooled_row import take_pooled_row_early
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.engine.threads import available_threads

# What protobuf can write and read as one message. Weights that leave less than a hundredth of it for nodes and names
# go into a file beside the model, but for those that would cost more there than they save.
LARGEST_FILE_BYTES = 2**31 - 1
_MOST_WEIGHTS = 0.99
_KEPT_INSIDE_BYTES = 1023
# What Hugging Face calls such a file: onnx/model.onnx_data.
_WEIGHTS_SUFFIX = "_data"
# onnxruntime's errors share no root but Exception.
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
ONNXRUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(RuntimeError, MemoryError, ValueError),
    *(_STATE.EPFail, _STATE.Fail, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.InvalidProtobuf),
    *(_STATE.NoSuchFile, _STATE.NotImplemented, _STATE.RuntimeException),
)
# Errors are raised, and told in our own words.
_FATAL_ONLY = 4
OPSET_VERSION = 18
# torch's exporter implements its operators from opset 18 on, and writes 18 whatever older one it is asked for. Above 25
# onnxscript 0.7 leaves the conversion to onnx, which stays at 18 where it has no rule for an operator.
OLDEST_OPSET, NEWEST_OPSET = 18, 25


def external_name(name: str) -> str:
    """Return the name of the file that a model's weights lie in where they are too large for its own."""
    return name + _WEIGHTS_SUFFIX


def opset_of(graph: onnx_ir.Model) -> int:
    """Return the version of ONNX's own operators that a model is written in, 0 where it names none."""
    return graph.opset_imports.get("", 0)


def write_onnx(graph: onnx_ir.Model, path: Path, largest_file_bytes: int = LARGEST_FILE_BYTES) -> None:
    """Write a model. Raises onnx.checker.ValidationError for one that is not valid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = _to_proto(graph, path, largest_file_bytes)
    # torch stamps IR version 10 on all of them, which shuts out older readers of 18 and is too low for 23.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    _forget_origin(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)  # of the file: what is in memory knows nothing of weights beside it


def _to_proto(graph: onnx_ir.Model, path: Path, largest_file_bytes: int) -> onnx.ModelProto:
    """Return the model as protobuf; weights too large for it are written to their file, one tensor after the other."""
    weights = (value.const_value for value in graph.graph.initializers.values())
    if sum(each.nbytes for each in weights if each is not None) <= _MOST_WEIGHTS * largest_file_bytes:
        return onnx_ir.to_proto(graph)
    onnx_ir.save(graph, path, external_data=external_name(path.name), size_threshold_bytes=_KEPT_INSIDE_BYTES)
    return onnx.load(path, load_external_data=False)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Take out what torch notes beside every node and value: source lines, with the paths of the exporting machine."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")


class OnnxBackbone(nn.Module):
    """The graph's inputs, in their order, -> unit vectors (B, D), as onnxruntime gives them on the CPU.

    `digest` is of the graph with its weights: part of what defines the space.
    """

    def __init__(self, graph: onnx_ir.Model) -> None:
        super().__init__()
        self.graph = graph
        self._names = [str(value.name) for value in graph.graph.inputs]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write_onnx(graph, Path(folder) / "tower.onnx")
            self.digest = "".join(sha256_of_file(path) for path in sorted(Path(folder).iterdir()))
            self._session = open_session(Path(folder) / "tower.onnx")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return vectors."""
        feeds = {name: tensor.numpy() for name, tensor in zip(self._names, inputs, strict=True)}
        return torch.from_numpy(cast("np.ndarray", self._session.run(None, feeds)[0]))


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return an ONNX file, loaded for the CPU. Raises one of `ONNXRUNTIME_ERRORS`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = available_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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
