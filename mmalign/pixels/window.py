"""Which part of the resized picture comes out: the resized sides, and where the crop or the fill begins.

In whole numbers, so that every engine finds the same ones: of (height, width), int64, shape (2,).
"""

from __future__ import annotations

import msgspec

from mmalign.pixels.nodes import Nodes
from mmalign.pixels.patches import add_patch_grid
from mmalign_runtime.spec import ImageSpec


class Window(msgspec.Struct, frozen=True):
    """Names of the picture's `sides`, of the `resized` ones, and of the first row and column that come out.

    `first` is negative where a fill comes before the picture, and None where it is (0, 0) for all pictures.
    """

    sides: str
    resized: str
    first: str | None


def add_window(nodes: Nodes, spec: ImageSpec, sides: str) -> Window:
    """Add the nodes that find the window for a picture of these sides."""
    resized = _resized(nodes, spec, sides)
    is_whole = spec.resize in ("squash", "naflex")
    return Window(sides, resized, None if is_whole else _first(nodes, spec, resized))


def _resized(nodes: Nodes, spec: ImageSpec, sides: str) -> str:
    if spec.resize == "naflex":
        return nodes("Mul", add_patch_grid(nodes, spec, sides), nodes.ints([spec.shortest_edge]))
    box = nodes.ints(spec.resized_shape)
    if spec.resize in ("squash", "resize_then_crop"):
        return box
    # (height, width) at the picture's ratio where the other side is the box's: one of the two is the box's own.
    swapped_sides = nodes("Gather", sides, nodes.ints([1, 0]))
    scaled = nodes("Mul", sides, nodes.ints(spec.resized_shape[::-1]))
    kept = _divide(nodes, scaled, swapped_sides, is_half_even=spec.side_rounding == "half_even")
    if spec.resize == "shortest_edge":
        return nodes("Max", box, kept)
    return nodes("Max", nodes("Min", box, kept), nodes.ints([1]))


def _first(nodes: Nodes, spec: ImageSpec, resized: str) -> str:
    """Half the margin, rounded; the margin of a fill is rounded as that of a crop and counted below zero."""
    shape, two = nodes.ints(spec.shape), nodes.ints([2])
    is_fill = spec.resize == "longest_edge"
    margin = nodes("Sub", shape, resized) if is_fill else nodes("Sub", resized, shape)
    half = _divide(nodes, margin, two, is_half_even=spec.crop_rounding == "half_even")
    return nodes("Neg", half) if is_fill else half


def _divide(nodes: Nodes, numerator: str, denominator: str, *, is_half_even: bool) -> str:
    """Divide numbers that are not negative, as no engine rounds those otherwise than down."""
    whole = nodes("Div", numerator, denominator)
    if not is_half_even:
        return whole
    # (2a + b) / 2b rounds a half up; where the whole part is even, one less in the numerator rounds it down.
    two = nodes.ints([2])
    is_odd = nodes("Sub", whole, nodes("Mul", nodes("Div", whole, two), two))
    doubled = nodes("Add", nodes("Mul", numerator, two), denominator)
    lowered = nodes("Add", doubled, nodes("Sub", is_odd, nodes.ints([1])))
    return nodes("Div", lowered, nodes("Mul", denominator, two))
