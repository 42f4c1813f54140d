"""Weights that an ONNX file keeps in other files: read from the model's own folder alone, whatever path it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import check_weight_file


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
