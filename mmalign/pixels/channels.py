"""The first pass for pictures of 1 to 4 channels: grey, grey and alpha, RGB, RGB and alpha.

RGB takes the straight way. The others are made RGB, and alpha is composited, inside a loop over the tiles, so that no
more than a tile is held in float32.

Shapes: H and W are the picture's sides, C its channels, T tiles, K columns that a tile looks at, 2n columns of weights.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from mmalign.pixels.nodes import BOOL, FLOAT, INT64, Nodes, info
from mmalign.pixels.resample import add_products
from mmalign.pixels.weights import Tiles
from mmalign_runtime.spec import ImageSpec

_WHITE = 255


def add_columns(nodes: Nodes, spec: ImageSpec, pixels: str, channels: str, tiles: Tiles) -> str:
    """Multiply the columns of (H, W, C) uint8 by the tiles' weights, (T * 3, H, 2n) float32.

    `channels` names C, int64 (1,).
    """
    straight, others = Nodes(nodes), Nodes(nodes)

    def tile(nodes: Nodes, start: str, end: str) -> str:
        return _planes(nodes, pixels, start, end)

    outputs = add_products(straight, tiles, tile), _composited(others, spec, pixels, channels, tiles)
    branches = [
        branch.graph(name, [], [info(output, FLOAT, [None, None, None])])
        for branch, name, output in zip((straight, others), ("rgb", "other_channels"), outputs, strict=True)
    ]
    is_rgb = nodes("Equal", channels, nodes.ints([3]))
    return nodes("If", is_rgb, then_branch=branches[0], else_branch=branches[1])


def _planes(nodes: Nodes, pixels: str, start: str, end: str) -> str:
    """Cut columns out, (C, H, K) float32."""
    columns = nodes("Slice", pixels, start, end, nodes.ints([1]))  # (H, K, C)
    return nodes("Cast", nodes("Transpose", columns, perm=[2, 0, 1]), to=FLOAT)


def _composited(nodes: Nodes, spec: ImageSpec, pixels: str, channels: str, tiles: Tiles) -> str:
    body, number, go_on, went_on = Nodes(nodes), "tile", "go_on", "went_on"
    start, end, weights = (body("Gather", value, number) for value in (tiles.starts, tiles.ends, tiles.weights))
    planes = _planes(body, pixels, start, end)  # (C, H, K)
    products = body("MatMul", _rgb(body, spec, planes, channels), weights)  # (3, H, 2n)
    body.nodes.append(helper.make_node("Identity", [go_on], [went_on]))
    loop = body.graph(
        "tiles",
        [info(number, INT64, []), info(go_on, BOOL, [])],
        [info(went_on, BOOL, []), info(products, FLOAT, [3, None, None])],
    )
    by_tile = nodes("Loop", nodes.ints(tiles.tiling.count), "", body=loop)  # (T, 3, H, 2n)
    return nodes("Reshape", by_tile, nodes.ints([3 * tiles.tiling.count, -1, 2 * tiles.tiling.size]))


def _rgb(nodes: Nodes, spec: ImageSpec, planes: str, channels: str) -> str:
    """From (C, H, K) to (3, H, K): grey three times, and alpha composited or dropped."""
    ints, floats = nodes.ints, nodes.floats
    has_colour = nodes("Cast", nodes("Greater", channels, ints([2])), to=INT64)
    colour = nodes("Gather", planes, nodes("Mul", ints([0, 1, 2]), has_colour), axis=0)  # (3, H, K)
    if spec.alpha == "dropped":
        return colour
    is_opaque = nodes("Cast", nodes("Equal", channels, ints([1])), to=FLOAT)
    last = nodes("Gather", planes, nodes("Sub", channels, ints([1])), axis=0)  # (1, H, K)
    alpha = nodes("Max", last, nodes("Mul", is_opaque, floats(_WHITE)))
    background = np.array(spec.background, np.float32).reshape(3, 1, 1)
    # Pillow's AlphaComposite.c on an opaque background: u = colour * alpha + background * (255 - alpha) + 128, and
    # (u / 2 + 128 u) / 2^15 of whole numbers, which are all exact in float32.
    mixed = nodes("Mul", nodes("Sub", colour, floats(background)), alpha)
    u = nodes("Add", mixed, floats(background * _WHITE + 128))
    sums = nodes("Add", nodes("Floor", nodes("Mul", u, floats(0.5))), nodes("Mul", u, floats(128)))
    return nodes("Floor", nodes("Mul", sums, floats(2.0**-15)))
