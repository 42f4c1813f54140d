"""The weights of Pillow's resize along one side, in 22 bits, for tiles of neighbouring outputs.

Pillow 12 (src/libImaging/Resample.c) takes the filter in double precision, divides by the sum of the taps and rounds to
whole numbers of 2^-22. Here distances are whole numbers, so that nothing is rounded before the filter. An engine that
computes doubles as floats is off by 2^-22 in a few weights of the cubic, and in next to none of the triangle.

Shapes: N outputs, T tiles of n outputs each, K inputs that a tile looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from mmalign.pixels.nodes import DOUBLE, FLOAT, INT64, Nodes

Interpolation = Literal["bilinear", "bicubic"]

# Pillow's PRECISION_BITS: 32 bits, less 8 of a level and 2 for what overshoots.
_WEIGHT_BITS = 22
# The lower half of a weight. Factors of eight bits and eleven are exact in float32 and in TF32, and their sums are in
# float32: of upper halves always, as weights add up to one; of lower halves over 64 taps at the worst, and beyond that
# as long as their signs are mixed.
LOW_BITS = 11
# How far a filter reaches, in outputs where the picture becomes smaller, else in inputs.
_REACH: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2}


class Side(msgspec.Struct, frozen=True):
    """One side of the picture, by names of int64 (1,): its length, its resized length, and the first output."""

    length: str
    resized: str
    first: str | None


class Tiling(msgspec.Struct, frozen=True):
    """N outputs as T tiles of `size`; the last tile repeats the last output until it is full.

    Where the picture decides N, `num_outputs` names it, int64 (1,), and it is a whole number of tiles.
    """

    num_outputs: int | str
    size: int

    @property
    def cut_to(self) -> int | None:
        """Return N where the last tile holds more, else None."""
        return None if isinstance(self.num_outputs, str) or self.num_outputs % self.size == 0 else self.num_outputs

    def count(self, nodes: Nodes) -> str:
        """Return T, int64."""
        if isinstance(self.num_outputs, str):
            return nodes("Squeeze", nodes("Div", self.num_outputs, nodes.ints([self.size])), nodes.ints([0]))
        return nodes.ints(-(-self.num_outputs // self.size))

    def reshaped(self, nodes: Nodes, before: Sequence[int]) -> str:
        """Return the shape (*before, T * n, -1), int64."""
        if isinstance(self.num_outputs, int):
            return nodes.ints([*before, -(-self.num_outputs // self.size) * self.size, -1])
        front = [nodes.ints(list(before))] if before else []
        return nodes("Concat", *front, self.num_outputs, nodes.ints([-1]), axis=0)

    def outputs(self, nodes: Nodes, times: int = 1, plus: int = 0) -> str:
        """Return the output of each place, int64 (T, n), times a number, plus another."""
        if isinstance(self.num_outputs, int):
            count = -(-self.num_outputs // self.size)
            places = np.arange(count * self.size).reshape(count, self.size)
            return nodes.ints(np.minimum(places, self.num_outputs - 1) * times + plus)
        last = nodes(
            "Add",
            nodes("Mul", nodes("Squeeze", self.num_outputs, nodes.ints([0])), nodes.ints(times)),
            nodes.ints(plus),
        )
        return nodes("Reshape", nodes("Range", nodes.ints(plus), last, nodes.ints(times)), nodes.ints([-1, self.size]))


class Tiles(msgspec.Struct, frozen=True):
    """Names of the first input of each tile and the one after its last, (T, 1), and of the weights, (T, 2n, K) float32.

    Of the 2n rows the first n are the upper halves of the weights, in units of 2^-LOW_BITS, and the others are the
    lower halves, in the same units. A filter `overshoots` when some of its weights are negative.
    """

    starts: str
    ends: str
    weights: str
    tiling: Tiling
    overshoots: bool


def add_tiles(nodes: Nodes, side: Side, tiling: Tiling, interpolation: Interpolation) -> Tiles:
    """Add the nodes that find each tile's inputs and weights.

    Distances between the centres of an output and an input are counted in 1 / (2 * resized) of an input.
    """
    ints, reach = nodes.ints, _REACH[interpolation]
    centres = nodes("Mul", _twice_and_one(nodes, side, tiling), side.length)  # (T, n)
    unit = nodes("Mul", nodes("Max", side.length, side.resized), ints([2]))
    farthest = unit if reach == 1 else nodes("Mul", unit, ints([reach]))
    between = nodes("Add", nodes("Mul", side.length, ints([tiling.size - 1])), farthest)
    num_inputs = nodes("Min", side.length, nodes("Add", nodes("Div", between, side.resized), ints([1])))  # K
    first_centres = nodes("Slice", centres, ints([0]), ints([1]), ints([1]))  # (T, 1)
    reached = nodes("Add", first_centres, nodes("Sub", side.resized, farthest))
    starts = nodes("Div", nodes("Max", reached, ints([0])), nodes("Mul", side.resized, ints([2])))
    starts = nodes("Min", starts, nodes("Sub", side.length, num_inputs))  # (T, 1)
    steps = nodes("Range", ints(0), nodes("Squeeze", num_inputs, ints([0])), ints(1))  # (K,)
    inputs = nodes("Add", nodes("Mul", nodes("Add", starts, steps), ints([2])), ints([1]))  # (T, K)
    positions = nodes("Unsqueeze", nodes("Mul", inputs, side.resized), ints([1]))  # (T, 1, K)
    apart = nodes("Abs", nodes("Sub", positions, nodes("Unsqueeze", centres, ints([2]))))  # (T, n, K)
    halves = (_triangle if interpolation == "bilinear" else _cubic)(nodes, apart, unit)  # (T, 2n, K)
    return Tiles(starts, nodes("Add", starts, num_inputs), halves, tiling, overshoots=interpolation == "bicubic")


def _twice_and_one(nodes: Nodes, side: Side, tiling: Tiling) -> str:
    """Twice each output's number and one: its centre, in half outputs, (T, n)."""
    if side.first is None:
        return tiling.outputs(nodes, times=2, plus=1)
    # An output of the fill takes the weights of the picture's nearest.
    at = nodes("Max", nodes("Add", tiling.outputs(nodes), side.first), nodes.ints([0]))
    at = nodes("Min", at, nodes("Sub", side.resized, nodes.ints([1])))
    return nodes("Add", nodes("Mul", at, nodes.ints([2])), nodes.ints([1]))


def _triangle(nodes: Nodes, apart: str, unit: str) -> str:
    """Return the halves of the triangle's weights: unit - apart where that is positive, by its sum.

    A long division in whole numbers below 2^31, so that engines that count in int32 and float32 find the same: at
    simple ratios values tie between two levels, and a last bit decides.
    """
    ints = nodes.ints
    taps = nodes("Max", nodes("Sub", unit, apart), ints([0]))  # (T, n, K)
    total = nodes("ReduceSum", taps, ints([2]), keepdims=1)  # (T, n, 1)
    shifted = nodes("Mul", taps, ints([2**LOW_BITS]))
    quotient = nodes("Div", nodes("Cast", shifted, to=FLOAT), nodes("Cast", total, to=FLOAT))
    upper = nodes("Round", quotient)
    rest = nodes("Sub", shifted, nodes("Mul", nodes("Cast", upper, to=INT64), total))
    unit_of_lower = nodes("Mul", nodes("Cast", total, to=DOUBLE), nodes.doubles(2.0**-LOW_BITS))
    share = nodes("Div", nodes("Cast", rest, to=DOUBLE), unit_of_lower)
    whole = nodes("Floor", nodes("Add", share, nodes.doubles(0.5)))
    lower = nodes("Mul", nodes("Cast", whole, to=FLOAT), nodes.floats(2.0**-LOW_BITS))
    return nodes("Concat", upper, lower, axis=1)


def _cubic(nodes: Nodes, apart: str, unit: str) -> str:
    """Return the halves of the weights of Keys' cubic with a = -0.5, as Pillow's BICUBIC.

    Twice the cubic is, for x below 2 and s = 2 - x, s^2 (s - 1), and below 1, with t = 1 - x, t^2 (2 - 4 t) more.
    """
    doubles = nodes.doubles
    x = nodes("Div", nodes("Cast", apart, to=DOUBLE), nodes("Cast", unit, to=DOUBLE))  # (T, n, K)
    s, t = (nodes("Relu", nodes("Sub", doubles(end), x)) for end in (2, 1))
    outer = nodes("Mul", nodes("Mul", s, s), nodes("Sub", s, doubles(1)))
    inner = nodes("Mul", nodes("Mul", t, t), nodes("Sub", doubles(2), nodes("Mul", t, doubles(4))))
    taps = nodes("Add", outer, inner)
    total = nodes("ReduceSum", taps, nodes.ints([2]), keepdims=1)  # (T, n, 1)
    shares = nodes("Div", taps, nodes("Mul", total, doubles(2.0**-_WEIGHT_BITS)))
    weights = nodes("Cast", nodes("Floor", nodes("Add", shares, doubles(0.5))), to=FLOAT)
    units = nodes("Mul", weights, nodes.floats(2.0**-LOW_BITS))
    upper = nodes("Round", units)
    return nodes("Concat", upper, nodes("Sub", units, upper), axis=1)
