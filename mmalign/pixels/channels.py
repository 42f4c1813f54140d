"""The first pass for pictures of 1 to 4 channels: grey, grey and alpha, RGB, RGB and alpha.

RGB is cut into tiles as it is; the others are made RGB, and alpha is composited, tile by tile.

Shapes: h and w are the picture's sides, C its channels, W the columns that come out, T tiles of n of them, K columns
that a tile looks at.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from mmalign.pixels.nodes import FLOAT, INT64, UINT8, Nodes, info
from mmalign.pixels.resample import add_columns
from mmalign.pixels.weights import Tiles
from mmalign_runtime.spec import ImageSpec

_WHITE = 255
# Pictures of so many pixels stay in the caches while they are transposed as a whole. It saves up to a quarter of the
# time of a small one, and memory of the picture's size would not be worth it for a large one.
_MOST_AT_ONCE = 2**20


def add_channels(nodes: Nodes, spec: ImageSpec, pixels: str, sides: tuple[str, str, str], tiles: Tiles) -> str:
    """Resize the columns of (h, w, C) uint8, to (W, 3 * h) uint8: by output, colour and row.

    `sides` name h, w and C, int64 (1,).
    """
    height, width, channels = sides
    is_rgb = nodes("Equal", channels, nodes.ints([3]))
    is_small = nodes("Less", nodes("Mul", height, width), nodes.ints([_MOST_AT_ONCE + 1]))

    def of_rgb(nodes: Nodes) -> str:
        return _either(
            nodes,
            is_small,
            lambda branch: _transposed_at_once(branch, pixels, height, tiles),
            lambda branch: _transposed_by_tile(branch, pixels, tiles),
        )

    return _either(nodes, is_rgb, of_rgb, lambda branch: _composited(branch, spec, pixels, channels, tiles))


def _either(nodes: Nodes, condition: str, first: Callable[[Nodes], str], other: Callable[[Nodes], str]) -> str:
    """Add both branches of a condition; each gives (W, 3 * h) uint8."""
    branches = [Nodes(nodes), Nodes(nodes)]
    outputs = [add(branch) for add, branch in zip((first, other), branches, strict=True)]
    graphs = [
        branch.graph("branch", [], [info(output, UINT8, [None, None])])
        for branch, output in zip(branches, outputs, strict=True)
    ]
    return nodes("If", condition, then_branch=graphs[0], else_branch=graphs[1])


def _transposed_at_once(nodes: Nodes, pixels: str, height: str, tiles: Tiles) -> str:
    columns = nodes("Transpose", nodes("Reshape", pixels, nodes.ints([0, -1])), perm=[1, 0])  # (w * 3, h)
    three_rows = nodes("Mul", height, nodes.ints([3]))
    columns = nodes("Reshape", columns, nodes("Concat", nodes.ints([-1]), three_rows, axis=0))  # (w, 3 * h)

    def cut(body: Nodes, start: str, end: str) -> str:
        return body("Cast", body("Slice", columns, start, end, body.ints([0])), to=FLOAT)

    return add_columns(nodes, tiles, cut)


def _transposed_by_tile(nodes: Nodes, pixels: str, tiles: Tiles) -> str:
    rows = nodes("Reshape", pixels, nodes.ints([0, -1]))  # (h, w * 3): what a tile looks at is one piece of a row
    starts, ends = (nodes("Mul", bound, nodes.ints([3])) for bound in (tiles.starts, tiles.ends))

    def cut(body: Nodes, start: str, end: str) -> str:
        piece = body("Slice", rows, start, end, body.ints([1]))
        columns = body("Transpose", body("Reshape", piece, body.ints([0, -1, 3])), perm=[1, 2, 0])  # (K, 3, h)
        return body("Reshape", body("Cast", columns, to=FLOAT), body.ints([0, -1]))

    return add_columns(nodes, msgspec.structs.replace(tiles, starts=starts, ends=ends), cut)


def _composited(nodes: Nodes, spec: ImageSpec, pixels: str, channels: str, tiles: Tiles) -> str:
    def cut(body: Nodes, start: str, end: str) -> str:
        columns = body("Slice", pixels, start, end, body.ints([1]))  # (h, K, C)
        planes = body("Cast", body("Transpose", columns, perm=[2, 1, 0]), to=FLOAT)  # (C, K, h)
        rgb = body("Transpose", _rgb(body, spec, planes, channels), perm=[1, 0, 2])  # (K, 3, h)
        return body("Reshape", rgb, body.ints([0, -1]))

    return add_columns(nodes, tiles, cut)


def _rgb(nodes: Nodes, spec: ImageSpec, planes: str, channels: str) -> str:
    """From (C, K, h) to (3, K, h): grey three times, and alpha composited or dropped."""
    ints, floats = nodes.ints, nodes.floats
    has_colour = nodes("Cast", nodes("Greater", channels, ints([2])), to=INT64)
    colour = nodes("Gather", planes, nodes("Mul", ints([0, 1, 2]), has_colour), axis=0)  # (3, K, h)
    if spec.alpha == "dropped":
        return colour
    is_opaque = nodes("Cast", nodes("Equal", channels, ints([1])), to=FLOAT)
    last = nodes("Gather", planes, nodes("Sub", channels, ints([1])), axis=0)  # (1, K, h)
    alpha = nodes("Max", last, nodes("Mul", is_opaque, floats(_WHITE)))
    background = np.array(spec.background, np.float32).reshape(3, 1, 1)
    # Pillow's AlphaComposite.c on an opaque background: u = colour * alpha + background * (255 - alpha) + 128, and
    # (u / 2 + 128 u) / 2^15 of whole numbers, which are all exact in float32.
    mixed = nodes("Mul", nodes("Sub", colour, floats(background)), alpha)
    u = nodes("Add", mixed, floats(background * _WHITE + 128))
    sums = nodes("Add", nodes("Floor", nodes("Mul", u, floats(0.5))), nodes("Mul", u, floats(128)))
    return nodes("Floor", nodes("Mul", sums, floats(2.0**-15)))
