"""One pass of the resize: levels and weights to levels, as Pillow's pass along one side, in whole numbers of float32.

Shapes: R lines of the picture, N outputs, T tiles of n outputs, K inputs that a tile looks at.
"""

from __future__ import annotations

from collections.abc import Callable

from mmalign.pixels.nodes import FLOAT, UINT8, Nodes
from mmalign.pixels.weights import LOW_BITS, Tiles

_WHITE = 255


def add_products(nodes: Nodes, tiles: Tiles, levels: Callable[[Nodes, str, str], str]) -> str:
    """Multiply each tile's levels, from its start to its end, by its weights, one below the other, (T * R.., 2n).

    `levels` adds the nodes that cut a tile out: float32, the inputs on its last axis, so (.., K).
    """
    count, size = tiles.tiling.count, tiles.tiling.size
    rows = nodes("Reshape", tiles.weights, nodes.ints([-1, 2 * size]))  # (T * K, 2n)
    parts = zip(*(nodes.split(value, count, 0) for value in (*_bounds(nodes, tiles), rows)), strict=True)
    products = [nodes("MatMul", levels(nodes, start, end), weights) for start, end, weights in parts]
    return nodes("Concat", *products, axis=0)


def add_lines(nodes: Nodes, products: str, tiles: Tiles) -> str:
    """Round the products to levels, an output a line, (N, R) uint8."""
    count, size, num_outputs = tiles.tiling.count, tiles.tiling.size, tiles.tiling.num_outputs
    flat = nodes("Reshape", products, nodes.ints([-1, 2 * size]))  # (T * R, 2n)
    upper, lower = nodes.split(flat, 2, 1)
    # Upper halves count 2^-11 of a level. Below them only what the lower halves carry into that place matters.
    sums = nodes("Mul", nodes("Add", upper, nodes("Floor", lower)), nodes.floats(2.0**-LOW_BITS))
    rounded = nodes("Add", sums, nodes.floats(0.5))
    # Within the range a cast to uint8 cuts off what is behind the point.
    levels = nodes("Cast", nodes("Clip", rounded, nodes.floats(0), nodes.floats(_WHITE)), to=UINT8)
    by_tile = nodes("Reshape", levels, nodes.ints([count, -1, size]))
    lines = nodes("Reshape", nodes("Transpose", by_tile, perm=[0, 2, 1]), nodes.ints([count * size, -1]))
    if num_outputs == count * size:
        return lines
    return nodes("Slice", lines, nodes.ints([0]), nodes.ints([num_outputs]), nodes.ints([0]))


def add_pass(nodes: Nodes, lines: str, tiles: Tiles) -> str:
    """Resize the second axis of (R, H) uint8, an output a line, (N, R) uint8."""

    def tile(nodes: Nodes, start: str, end: str) -> str:
        return nodes("Cast", nodes("Slice", lines, start, end, nodes.ints([1])), to=FLOAT)  # (R, K)

    return add_lines(nodes, add_products(nodes, tiles, tile), tiles)


def _bounds(nodes: Nodes, tiles: Tiles) -> tuple[str, str]:
    return nodes("Reshape", tiles.starts, nodes.ints([-1])), nodes("Reshape", tiles.ends, nodes.ints([-1]))
