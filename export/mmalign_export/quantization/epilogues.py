"""What stands right behind a product and can be part of it: constants that are added to its columns or scale them.

A product in eight bits adds a bias and scales its columns for nothing; as operators of their own, a bias and the layer
scale of a vision transformer each read and write the whole tensor again. Letters: N features out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from mmalign_export.quantization.graph import GraphEditor
from mmalign_export.quantization.sites import Site

Columns = NDArray[np.float32]


class Epilogue(msgspec.Struct, frozen=True):
    """`output` = product * scale + bias, both (N,) or None where there is none; `absorbed` are the nodes' outputs."""

    output: str
    scale: Columns | None = None
    bias: Columns | None = None
    absorbed: tuple[str, ...] = ()


def find_epilogues(editor: GraphEditor, sites: Sequence[Site]) -> dict[str, Epilogue]:
    """Return what follows each product, by the site's name; attention has no such thing."""
    readers: dict[str, NodeProto] = {name: node for node in editor.nodes for name in node.input}
    return {site.name: _follow(editor, readers, site) for site in sites if site.role != "qkv"}


def _follow(editor: GraphEditor, readers: dict[str, NodeProto], site: Site) -> Epilogue:
    found, width = Epilogue(site.name), editor.value(site.weight).shape[1]
    while editor.num_uses(found.output) == 1 and found.output in readers:
        node = readers[found.output]
        columns = _columns(editor, node, found.output, width) if node.op_type in ("Add", "Mul") else None
        if columns is None:
            break
        found = _extended(found, node, columns)
    return found


def _extended(found: Epilogue, node: NodeProto, columns: Columns) -> Epilogue:
    scale, bias = found.scale, found.bias
    if node.op_type == "Add":
        bias = columns if bias is None else bias + columns
    else:
        scale = columns if scale is None else scale * columns
        bias = None if bias is None else bias * columns
    return Epilogue(node.output[0], scale, bias, (*found.absorbed, node.output[0]))


def _columns(editor: GraphEditor, node: NodeProto, product: str, width: int) -> Columns | None:
    """Return the constant that an Add or Mul joins to a product, (N,); None where it does not stand for columns."""
    other = node.input[1] if node.input[0] == product else node.input[0]
    if not editor.is_constant(other):
        return None
    value = editor.value(other)
    if value.size not in (1, width) or (value.size == width and value.shape[-1:] != (width,)):
        return None
    # A constant of more dimensions than the product would add some to it.
    return None if value.ndim > 2 else np.broadcast_to(value.reshape(-1), (width,)).astype(np.float32)
