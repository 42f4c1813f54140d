"""An .onnx file of a source, read and held to what can be imported: whole, float32, finite.

Weights that it keeps in other files are read from the model's own folder alone, whatever path it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import check_weight_file, first_sentence
from mmalign_export.to_onnx import opset_of

# Below it a `Scan`, which an import may add, had another form.
OLDEST_OPSET = 9
# Where numbers are kept or multiplied in other types than float32.
_LOW = frozenset(
    {
        *(ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4),
        *(ir.DataType.UINT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT4E2M1),
    }
)
_LOW_OPERATORS = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "NBits", "Bnb4", "Integer")


def read_external(path: Path, proto: onnx.ModelProto) -> None:
    """Put the weights that lie in files beside a model into it.

    Raises SourceError for files that are not there, are not whole, or lie in another folder.
    """
    for tensor in _tensors(proto.graph):
        if _is_external(tensor):
            _check_entries(path, tensor)
    for name in external_files(proto):
        _check_external(path, name, _ends(proto, name))
    for tensor in _tensors(proto.graph):
        if _is_external(tensor):
            _fill(path, tensor)


def _check_entries(path: Path, tensor: onnx.TensorProto) -> None:
    entries = _entries(tensor)
    numbers = [entries[name] for name in ("offset", "length") if name in entries]
    if "location" not in entries or not all(each.isdecimal() for each in numbers):
        raise SourceError(
            f"{path}: the tensor {tensor.name} lies in another file, at {entries}; expected a location, and an offset "
            "and a length in bytes. Fetch the model again."
        )


def external_files(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the files that a model keeps weights in."""
    return sorted({_entries(tensor).get("location", "") for tensor in _tensors(proto.graph) if _is_external(tensor)})


def _ends(proto: onnx.ModelProto, name: str) -> int:
    """Return how many bytes the tensors of a model need of a file."""
    entries = (_entries(tensor) for tensor in _tensors(proto.graph) if _is_external(tensor))
    return max(int(each.get("offset", 0)) + int(each.get("length", 0)) for each in entries if each["location"] == name)


def _check_external(path: Path, name: str, num_bytes: int) -> None:
    inside = PurePosixPath(name.replace("\\", "/"))
    if not name or inside.is_absolute() or ".." in inside.parts or ":" in name:
        raise SourceError(
            f"{path} keeps weights at {name!r}, outside of its own folder, which is never read. Fetch the model again "
            "from where it was published."
        )
    beside = path.parent / inside
    if not beside.is_file():
        raise SourceError(f"{path} keeps weights in {name}, which is not beside it. Fetch that file too.")
    # The cache of the hub holds links: the model and its weights then lie in one folder all the same.
    if not beside.resolve().is_relative_to(path.resolve().parent):
        raise SourceError(
            f"{beside} is a link to another place, {beside.resolve()}, which is never read. Copy the file."
        )
    check_weight_file(beside)
    if beside.stat().st_size < num_bytes:
        raise SourceError(
            f"{beside} has {beside.stat().st_size} bytes, and {path.name} reads {num_bytes} of it: it is not whole. "
            "Fetch it again."
        )


def _fill(path: Path, tensor: onnx.TensorProto) -> None:
    entries = _entries(tensor)
    with (path.parent / entries["location"]).open("rb") as file:
        file.seek(int(entries.get("offset", 0)))
        tensor.raw_data = file.read(int(entries.get("length", -1)))
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _held(attribute)


def _held(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
    nested: Iterable[onnx.GraphProto] = (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    for graph in nested:
        yield from _tensors(graph)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def read_graph(path: Path) -> ir.Model:
    """Return the graph of a file, with the weights that lie in files beside it. Raises SourceError."""
    check_weight_file(path)
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise SourceError(f"{path} is not a whole ONNX file: {first_sentence(error)}. Fetch it again.") from error
    if not proto.graph.node or not proto.graph.output:
        raise SourceError(f"{path} holds no graph with an output. Fetch it again.")
    read_external(path, proto)
    try:
        model = ir.from_proto(proto)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise SourceError(f"{path} cannot be read as a graph: {first_sentence(error)}. Fetch it again.") from error
    if opset_of(model) < OLDEST_OPSET:
        raise SourceError(
            f"{path} is of ONNX opset {opset_of(model)}; expected {OLDEST_OPSET} or later. Export the model again."
        )
    _check_precision(path, model)
    _check_finite(path, model)
    return model


def fixed_length(model: ir.Model) -> int | None:
    """Return how many tokens a text tower reads where its graph fixes that."""
    shapes = [list(value.shape) for value in model.graph.inputs if value.shape is not None and len(value.shape) == 2]
    return next((shape[1] for shape in shapes if isinstance(shape[1], int)), None)


def embedding_rows(model: ir.Model) -> int | None:
    """Return for how many ids a text tower has a vector; None where its graph looks them up in another way."""
    ids = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    seen = [value for value in ids if "mask" not in str(value.name) and "type" not in str(value.name)]
    while seen:
        value = seen.pop()
        for node in value.consumers():
            table = node.inputs[0]
            if (
                node.op_type == "Gather"
                and node.inputs[1] is value
                and table is not None
                and table.const_value is not None
            ):
                return len(table.const_value.numpy())
            if node.op_type in ("Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze"):
                seen.append(node.outputs[0])
    return None


def _check_precision(path: Path, model: ir.Model) -> None:
    """Raise SourceError for a file that is not float32 all through: its numbers would be taken for the model's."""
    kept = Counter(str(each.dtype).rpartition(".")[2].lower() for each in _weights(model) if each.dtype in _LOW)
    used = sorted(
        {node.op_type for node in model.graph.all_nodes() if any(mark in node.op_type for mark in _LOW_OPERATORS)}
    )
    if kept or used:
        seen = [f"{count} tensors of {name}" for name, count in kept.most_common()] + used
        raise SourceError(
            f"{path} is quantized or of half precision ({', '.join(seen)}), and a bundle's first towers are float32. "
            "Import the float32 file (model.onnx, text_model.onnx, vision_model.onnx), then run `mmalign quantize`."
        )


def _check_finite(path: Path, model: ir.Model) -> None:
    for tensor in _weights(model):
        if tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            array = _array(path, tensor)
            # The extremes alone; both are NaN where a value is. Masks hold the infinity below all scores on purpose.
            if array.size and (np.isnan(array.min()) or array.max() == np.inf):
                raise SourceError(
                    f"{path}: the tensor {tensor.name} holds values that are not finite. Fetch the model again."
                )


def _array(path: Path, tensor: ir.TensorProtocol) -> np.ndarray:
    try:
        return tensor.numpy()
    except ValueError as error:
        raise SourceError(
            f"{path}: the tensor {tensor.name} does not hold as many values as its shape {tensor.shape} has: it is not "
            "whole. Fetch the model again."
        ) from error


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Return every constant: initializers of the graph and of its subgraphs, and what nodes hold."""
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)
    for node in model.graph.all_nodes():
        yield from (each.as_tensor() for each in node.attributes.values() if each.type == ir.AttributeType.TENSOR)
