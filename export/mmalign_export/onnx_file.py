"""Graphs as .onnx files: weights that are too large for one lie in a file beside it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir

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
