"""Patches at a picture's own ratio (NaFlex): how many rows and columns of them, and their values in a row.

The number is the one that big_vision and transformers find: the largest scale at which the picture, both sides rounded
up to whole patches, has no more patches than allowed. They search it by halving between two scales, so that scales lie
on a grid, and a picture is as large as the last one on it. Here that scale is computed at once, from the scales at
which a side outgrows 1, 2, 3 ... patches.
Shapes: h and w are the picture's sides, R and C rows and columns of patches, P pixels of a patch's side, N patches.
"""

from __future__ import annotations

import numpy as np

from mmalign.pixels.nodes import DOUBLE, FLOAT, INT64, Nodes
from mmalign_runtime.spec import ImageSpec

# transformers 5 (image_processing_siglip2.py): scales from 10^-6 to 100, halved until they are less than 10^-5 apart.
_SMALLEST, _LARGEST = 1e-6, 100.0
_HALVINGS = 24
_STEP = (_LARGEST - _SMALLEST) / 2**_HALVINGS


def add_patch_grid(nodes: Nodes, spec: ImageSpec, sides: str) -> str:
    """Add the nodes that find (R, C), int64 (2,), for a picture of `sides` (h, w)."""
    counts = np.arange(1, spec.num_patches + 1)
    beside = spec.num_patches // counts  # columns that so many rows leave room for
    lengths = nodes("Cast", nodes("Unsqueeze", sides, nodes.ints([1])), to=DOUBLE)  # (2, 1)
    scales = nodes("Div", nodes.doubles(counts * spec.shortest_edge), lengths)  # (2, N)
    last = nodes("Floor", nodes("Div", nodes("Sub", scales, nodes.doubles(_SMALLEST)), nodes.doubles(_STEP)))
    of_rows, of_columns = nodes.split(last, 2, 0)  # (1, N): the last step at which so many are enough
    fitting = nodes("Min", of_rows, nodes("Gather", of_columns, nodes.ints(beside - 1), axis=1))
    step = nodes("Min", nodes("ReduceMax", fitting, keepdims=1), nodes.doubles(2**_HALVINGS - 1))  # (1, 1)
    too_few = nodes("Cast", nodes("Less", last, step), to=INT64)  # (2, N)
    return nodes("Add", nodes("ReduceSum", too_few, nodes.ints([1]), keepdims=0), nodes.ints([1]))


def add_patches(nodes: Nodes, spec: ImageSpec, planes: str, resized: str) -> str:
    """Cut (1, 3, R * P, C * P), whose sides `resized` names, into patches (1, N, 3 * P * P + 2), padded with zeros."""
    side = spec.shortest_edge
    num_rows, num_columns = nodes.split(nodes("Div", resized, nodes.ints([side])), 2, 0)
    shape = nodes("Concat", nodes.ints([3]), num_rows, nodes.ints([side]), num_columns, nodes.ints([side]), axis=0)
    cut = nodes("Transpose", nodes("Reshape", planes, shape), perm=[1, 3, 2, 4, 0])  # (R, C, P, P, 3)
    values = nodes("Reshape", cut, nodes.ints([-1, 3 * side * side]))  # (R * C, 3 * P * P)
    count = nodes("Mul", num_rows, num_columns)
    numbers = nodes("Range", nodes.ints(0), nodes("Squeeze", count, nodes.ints([0])), nodes.ints(1))  # (R * C,)
    rows = nodes("Div", numbers, num_columns)
    columns = nodes("Sub", numbers, nodes("Mul", rows, num_columns))
    stacked = [nodes("Unsqueeze", each, nodes.ints([1])) for each in (rows, columns)]
    places = nodes("Add", nodes("Concat", *stacked, axis=1), nodes.ints([1]))  # (R * C, 2), from 1
    patches = nodes("Concat", values, nodes("Cast", places, to=FLOAT), axis=1)
    room = nodes("Concat", nodes("Sub", nodes.ints([spec.num_patches]), count), nodes.ints([1]), axis=0)
    padding = nodes("Expand", nodes.floats(np.zeros((1, spec.values_shape[1]))), room)
    return nodes("Unsqueeze", nodes("Concat", patches, padding, axis=0), nodes.ints([0]))
