"""The preprocessing graph as a whole: two passes of the resize, crop or fill, normalisation.

Columns come first, as in Pillow, which rounds to levels in between. What the crop leaves out is never computed.
Shapes: h and w are the picture's sides, C its channels (1 to 4), H and W the sides of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from mmalign.pixels.channels import add_channels
from mmalign.pixels.nodes import FLOAT, UINT8, Nodes, info
from mmalign.pixels.patches import add_patches
from mmalign.pixels.resample import add_rows
from mmalign.pixels.weights import Side, Tiling, add_tiles
from mmalign.pixels.window import Window, add_window
from mmalign_runtime.spec import ImageSpec

# The oldest opset in which `ReduceSum`, `Split` and `Squeeze` read as today; IR version 7 came with it.
PREPROCESS_OPSET = 13
_IR_VERSION = 7
# Outputs a tile: measured (docs/decisions.md). Tiles of few outputs multiply little that is outside their reach.
_COLUMNS, _ROWS = 8, 16
_MAX_TILES = 64
_INPUT, _OUTPUT = "pixels", "pixel_values"


def build_graph(spec: ImageSpec) -> onnx.ModelProto:
    """Return the graph `pixels` (h, w, C) uint8 -> `pixel_values` (1, 3, H, W) float32, for C of 1 to 4.

    Of patches it is (1, N, 3 P^2 + 2): H and W are then what the picture decides.
    """
    nodes = Nodes()
    shape = nodes("Shape", _INPUT)
    height, width, channels = nodes.split(shape, 3, 0)
    window = add_window(nodes, spec, nodes("Slice", shape, nodes.ints([0]), nodes.ints([2])))
    rows, columns = _sides(nodes, window, height, width)
    of_rows, of_columns = _tilings(spec, rows, columns)
    tiles = add_tiles(nodes, columns, of_columns, spec.interpolation)
    lines = add_channels(nodes, spec, _INPUT, (height, width, channels), tiles)  # (W, 3 * h)
    lines = nodes("Reshape", lines, nodes("Concat", *_columns_and_colours(nodes, of_columns), height, axis=0))
    planes = nodes("Transpose", lines, perm=[0, 2, 3, 1])  # (1, 3, h, W)
    normalise = _normalisation(nodes, spec)
    found = add_rows(nodes, add_tiles(nodes, rows, of_rows, spec.interpolation), planes, normalise)
    if spec.resize == "naflex":
        found = add_patches(nodes, spec, found, window.resized)
    if spec.resize == "longest_edge":
        fill = normalise(nodes, nodes.floats(np.array(spec.fill).reshape(1, 3, 1, 1)))
        found = nodes("Where", _is_picture(nodes, spec, window), found, fill)
    nodes.rename(found, _OUTPUT)
    return _model(nodes, spec)


def _normalisation(nodes: Nodes, spec: ImageSpec) -> Callable[[Nodes, str], str]:
    """Return what adds (x / 255 - mean) / std of levels (1, 3, .., ..), as one multiplication and one addition."""
    mean, std = (np.array(value, np.float64).reshape(1, 3, 1, 1) for value in (spec.mean, spec.std))
    scale, shift = nodes.named("scale", 1 / (255 * std)), nodes.named("shift", -mean / std)
    return lambda nodes, levels: nodes("Add", nodes("Mul", levels, scale), shift)


def _tilings(spec: ImageSpec, rows: Side, columns: Side) -> tuple[Tiling, Tiling]:
    """Return how rows and columns come out in tiles; where the picture decides their number, in tiles of a patch."""
    if spec.resize == "naflex":
        return Tiling(rows.resized, spec.shortest_edge), Tiling(columns.resized, spec.shortest_edge)
    num_rows, num_columns = spec.shape
    return _tiling(num_rows, _ROWS), _tiling(num_columns, _COLUMNS)


def _tiling(num_outputs: int, size: int) -> Tiling:
    return Tiling(num_outputs, max(size, -(-num_outputs // _MAX_TILES)))


def _columns_and_colours(nodes: Nodes, columns: Tiling) -> tuple[str, ...]:
    if isinstance(columns.num_outputs, int):
        return (nodes.ints([1, columns.num_outputs, 3]),)
    return nodes.ints([1]), columns.num_outputs, nodes.ints([3])


def _sides(nodes: Nodes, window: Window, height: str, width: str) -> tuple[Side, Side]:
    resized = nodes.split(window.resized, 2, 0)
    first = [None, None] if window.first is None else nodes.split(window.first, 2, 0)
    return Side(height, resized[0], first[0]), Side(width, resized[1], first[1])


def _is_picture(nodes: Nodes, spec: ImageSpec, window: Window) -> str:
    """Say of each output whether it lies inside the resized picture, (1, 1, H, W) bool."""
    assert window.first is not None, "where a fill is, it may begin before the picture"
    firsts, resized = nodes.split(window.first, 2, 0), nodes.split(window.resized, 2, 0)
    inside = []
    for length, first, end, shape in zip(spec.shape, firsts, resized, ([1, 1, -1, 1], [1, 1, 1, -1]), strict=True):
        at = nodes("Add", nodes.ints(np.arange(length)), first)
        is_inside = nodes("And", nodes("Greater", at, nodes.ints([-1])), nodes("Less", at, end))
        inside.append(nodes("Reshape", is_inside, nodes.ints(shape)))
    return nodes("And", *inside)


def _model(nodes: Nodes, spec: ImageSpec) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes.nodes,
        "image_preprocess",
        [info(_INPUT, UINT8, ["height", "width", "channels"])],
        [info(_OUTPUT, FLOAT, [1, *spec.values_shape])],
        initializer=nodes.initializers,
    )
    opset = helper.make_opsetid("", PREPROCESS_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mmalign")
    onnx.checker.check_model(model, full_check=True)
    return model
