"""Finds weights that an .onnx file keeps in other files, which a bundle does not allow: it would no longer be closed.

Reads just enough of the protobuf wire format to walk from the model to its tensors. The runtime has no onnx package,
and onnxruntime follows such references to wherever they lead.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.errors import BundleError, BundleIntegrityError

# Field numbers of onnx.proto (ONNX 1.x, stable since IR version 3).
_MODEL_GRAPH = 7
_MODEL_FUNCTIONS = 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_FUNCTION_NODE = 7
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL_DATA = 13

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# What each kind of message holds: the fields that lead on, and the kind of message behind them.
_LEADS: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTIONS: "function"},
    "function": {_FUNCTION_NODE: "node"},
    "graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "tensor", _GRAPH_SPARSE_INITIALIZER: "sparse"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        _ATTRIBUTE_TENSOR: "tensor",
        _ATTRIBUTE_TENSORS: "tensor",
        _ATTRIBUTE_GRAPH: "graph",
        _ATTRIBUTE_GRAPHS: "graph",
        _ATTRIBUTE_SPARSE_TENSOR: "sparse",
        _ATTRIBUTE_SPARSE_TENSORS: "sparse",
    },
    "sparse": {_SPARSE_VALUES: "tensor", _SPARSE_INDICES: "tensor"},
}


def check_closed(source: FileSource, name: str) -> None:
    """Raise BundleError for a file that is not an ONNX model, BundleIntegrityError for weights in another file."""
    try:
        is_open = has_external_data(_view(source))
    except ValueError as error:
        raise BundleError(f"{name} is not an ONNX model ({error}). Export the bundle again.") from error
    if is_open:
        raise BundleIntegrityError(
            f"{name} keeps weights in another file; a bundle's models are whole. Export it again."
        )


def has_external_data(model: memoryview) -> bool:
    """Return whether a tensor of the model lies outside of it. Raises ValueError when the bytes are no protobuf."""
    waiting: list[tuple[str, memoryview]] = [("model", model)]
    while waiting:
        kind, message = waiting.pop()
        for field, content in _fields(message):
            if kind == "tensor" and field == _TENSOR_EXTERNAL_DATA:
                return True
            if lead := _LEADS.get(kind, {}).get(field):
                waiting.append((lead, content))
    return False


def _view(source: FileSource) -> memoryview:
    if isinstance(source, bytes):
        return memoryview(source)
    with source.open("rb") as file:  # the mapping outlives the file, and goes when nobody looks at it any more
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and content of each field that holds bytes; numbers are stepped over."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire = key & 7
        if wire == _VARINT:
            _, position = _varint(message, position)
        elif wire == _LENGTH:
            length, start = _varint(message, position)
            position = start + length
            yield key >> 3, message[start:position]
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
    if position != len(message):
        raise ValueError("the last field is cut off")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("a number is cut off or too long")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position
