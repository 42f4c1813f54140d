"""Finds weights that an .onnx file keeps in other files: only those that its bundle lists for it are allowed.

Reads just enough of the protobuf wire format to walk from the model to its tensors. The runtime has no onnx package,
and engines follow such references to wherever they lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mmalign_runtime.bundle.contents import mapped
from mmalign_runtime.engine.session import Model
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
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# What each kind of message holds: the fields that lead on, and the kind of message behind them.
_LEADS: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "main graph", _MODEL_FUNCTIONS: "function"},
    "main graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "initializer", _GRAPH_SPARSE_INITIALIZER: "sparse"},
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


class Reference(msgspec.Struct, frozen=True):
    """Where one tensor lies: the path as the model gives it, the first byte, how many (None: as many as it needs).

    Engines take only an initializer of the main graph from memory; any other they read from wherever the path leads.
    """

    location: str
    offset: int
    num_bytes: int | None
    is_initializer: bool


def check_external(model: Model) -> None:
    """Hold every reference to weights outside of a model to `model.external`.

    Raises BundleError for a file that is not an ONNX model, BundleIntegrityError for weights in another file, or beyond
    the end of one.
    """
    lengths = {each.location: len(each.view) for each in model.external}
    try:
        found = references(memoryview(model.source) if isinstance(model.source, bytes) else mapped(model.source))
    except ValueError as error:
        raise BundleError(f"{model.name} is not an ONNX model ({error}). Export the bundle again.") from error
    for each in found:
        if each.location not in lengths or not each.is_initializer:
            raise BundleIntegrityError(
                f"{model.name} keeps weights in another file, {each.location!r}; expected "
                f"{', '.join(map(repr, lengths)) or 'none'}. Export it again."
            )
        if each.offset + (each.num_bytes or 0) > lengths[each.location]:
            raise BundleIntegrityError(
                f"{model.name} reads beyond the end of {each.location!r}, which has {lengths[each.location]} bytes. "
                "Export it again."
            )


def references(model: memoryview) -> set[Reference]:
    """Return where a model's tensors lie that are not in it. Raises ValueError when the bytes are not protobuf."""
    found = set()
    waiting: list[tuple[str, memoryview]] = [("model", model)]
    while waiting:
        kind, message = waiting.pop()
        entries = []
        for field, content in _fields(message):
            if field == _TENSOR_EXTERNAL_DATA and kind in ("initializer", "tensor"):
                entries.append(content)
            elif lead := _LEADS.get(kind, {}).get(field):
                waiting.append((lead, content))
        if entries:
            found.add(_reference(entries, kind == "initializer"))
    return found


def _reference(entries: Sequence[memoryview], is_initializer: bool) -> Reference:
    pairs = [dict(_fields(entry)) for entry in entries]
    named = {str(pair.get(_ENTRY_KEY, b""), "utf-8"): str(pair.get(_ENTRY_VALUE, b""), "utf-8") for pair in pairs}
    if len(named) < len(pairs):  # engines disagree on which one counts
        raise ValueError("it says twice where a tensor lies")
    length = _number(named["length"]) if "length" in named else None
    return Reference(named.get("location", ""), _number(named.get("offset", "0")), length, is_initializer)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number of bytes")
    return int(text)


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
