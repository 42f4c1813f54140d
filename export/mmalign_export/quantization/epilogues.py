"""What stands right behind a product and can be part of it: constants that are added to its columns or scale them.

A product in eight bits adds a bias and scales its columns for nothing; as operators of their own, a bias and the layer
scale of a vision transformer each read and write the whole tensor again. N features out.
"""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mmalign_export.quantization.graph import array_of, is_constant, num_uses


class Epilogue(msgspec.Struct, frozen=True):
    """`output` = product * scale + bias, both (N,) or None where there is none."""

    output: ir.Value
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


def find_epilogue(product: ir.Value, width: int) -> Epilogue:
    """Return what follows a product of so many columns."""
    found = Epilogue(product)
    while num_uses(found.output) == 1 and found.output.consumers():
        (reader,) = found.output.consumers()
        columns = _columns(reader, found.output, width) if reader.op_type in ("Add", "Mul") else None
        if columns is None:
            break
        found = _extended(found, reader, columns)
    return found


def _extended(found: Epilogue, reader: ir.Node, columns: NDArray[np.float32]) -> Epilogue:
    scale, bias = found.scale, found.bias
    if reader.op_type == "Add":
        bias = columns if bias is None else bias + columns
    else:
        scale = columns if scale is None else scale * columns
        bias = None if bias is None else bias * columns
    return Epilogue(reader.outputs[0], scale, bias)


def _columns(reader: ir.Node, product: ir.Value, width: int) -> NDArray[np.float32] | None:
    """Return the constant that an Add or Mul joins to a product, (N,); None where it does not stand for columns."""
    other = reader.inputs[1] if reader.inputs[0] is product else reader.inputs[0]
    if not is_constant(other):
        return None
    value = array_of(other)
    if value.size not in (1, width) or (value.size == width and value.shape[-1:] != (width,)):
        return None
    # A constant of more dimensions than the product would add some to it.
    return None if value.ndim > 2 else np.broadcast_to(value.reshape(-1), (width,)).astype(np.float32)
