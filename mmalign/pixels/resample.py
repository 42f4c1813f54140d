"""The two passes of the resize: levels and weights to levels, as Pillow's, in whole numbers of float32.

A loop goes over tiles of outputs: what is wider than a level stays in cache, and the graph stays small.

Shapes: h and w are the picture's sides, W the columns that come out, T tiles of n outputs, K inputs that a tile looks
at.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import helper

from mmalign.pixels.nodes import BOOL, FLOAT, INT64, UINT8, Nodes, info
from mmalign.pixels.weights import LOW_BITS, Tiles

_WHITE = 255

# From a tile's start and end, int64 (1,), to the inputs between them, float32, K on the last axis but one.
Cut = Callable[[Nodes, str, str], str]


def add_columns(nodes: Nodes, tiles: Tiles, cut: Cut) -> str:
    """Resize the columns that `cut` gives, (K, 3 * h), to (W, 3 * h) uint8."""

    def levels(body: Nodes, sums: str) -> str:
        return body("Cast", sums, to=UINT8)  # within the range that cuts off what is behind the point

    by_tile = _add_loop(nodes, tiles, cut, 0, levels, UINT8)  # (T, n, 3 * h)
    return _joined(nodes, tiles, nodes("Reshape", by_tile, tiles.tiling.reshaped(nodes, [])), 0)


def add_rows(nodes: Nodes, tiles: Tiles, planes: str, normalise: Callable[[Nodes, str], str]) -> str:
    """Resize the rows of (1, 3, h, W) uint8, and normalise levels (1, 3, n, W), to (1, 3, H, W) float32."""

    def cut(body: Nodes, start: str, end: str) -> str:
        return body("Cast", body("Slice", planes, start, end, body.ints([2])), to=FLOAT)  # (1, 3, K, W)

    def pixel_values(body: Nodes, sums: str) -> str:
        return normalise(body, body("Floor", sums))

    by_tile = _add_loop(nodes, tiles, cut, 2, pixel_values, FLOAT)  # (T, 1, 3, n, W)
    planes = nodes("Transpose", by_tile, perm=[1, 2, 0, 3, 4])
    planes = nodes("Reshape", planes, tiles.tiling.reshaped(nodes, [1, 3]))
    return _joined(nodes, tiles, planes, 2)


def _add_loop(
    nodes: Nodes, tiles: Tiles, cut: Cut, axis: int, finish: Callable[[Nodes, str], str], element: int
) -> str:
    """Multiply and round tile by tile, (T, ..): `axis` is that of a tile's outputs, `finish` takes their sums."""
    body, number, go_on, went_on = Nodes(nodes), nodes.name(), nodes.name(), nodes.name()
    start, end, weights = (body("Gather", value, number) for value in (tiles.starts, tiles.ends, tiles.weights))
    products = body("MatMul", weights, cut(body, start, end))  # (.., 2n, ..)
    found = finish(body, _rounded(body, tiles, products, axis))
    body.nodes.append(helper.make_node("Identity", [go_on], [went_on]))
    loop = body.graph(
        "tiles",
        [info(number, INT64, []), info(go_on, BOOL, [])],
        [info(went_on, BOOL, []), info(found, element)],
    )
    return nodes("Loop", tiles.tiling.count(nodes), "", body=loop)


def _joined(nodes: Nodes, tiles: Tiles, outputs: str, axis: int) -> str:
    """Leave out what the last tile repeats of the last output."""
    if tiles.tiling.cut_to is None:
        return outputs
    return nodes("Slice", outputs, nodes.ints([0]), nodes.ints([tiles.tiling.cut_to]), nodes.ints([axis]))


def _rounded(nodes: Nodes, tiles: Tiles, products: str, axis: int) -> str:
    """From the products with both halves of the weights, one behind the other, to levels and what to cut off."""
    upper, lower = nodes.split(products, 2, axis)
    # Upper halves count 2^-11 of a level. Below them only what the lower halves carry into that place matters.
    sums = nodes("Mul", nodes("Add", upper, nodes("Floor", lower)), nodes.floats(2.0**-LOW_BITS))
    rounded = nodes("Add", sums, nodes.floats(0.5))
    return nodes("Clip", rounded, nodes.floats(0), nodes.floats(_WHITE)) if tiles.overshoots else rounded
