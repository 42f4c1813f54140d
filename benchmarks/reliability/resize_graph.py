"""The preprocessing graph of format 1 bundles, of the operator `Resize`: what the portable graph is timed against."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from mmalign_runtime.spec import ImageSpec

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
# Opset 18 is the first whose Resize has `antialias`; the cubic is Keys' with a = -0.5, as Pillow's BICUBIC.
_GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
image_preprocess (uint8[height, width, 3] pixels) => (float[1, 3, {side}, {side}] pixel_values)
<int64[1] axis_0 = {{0}}, int64[2] start = {{1, 3}}, int64[2] sides = {{{side}, {side}}}{constants}>
{{
  chw = Transpose <perm = [2, 0, 1]> (pixels)
  nchw = Unsqueeze (chw, axis_0)
  {before}
  new_sizes = Concat <axis = 0> (start, new_sides)
  resized = Resize <mode = "{mode}", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5,
    coordinate_transformation_mode = "half_pixel"> (nchw, , , new_sizes)
  {after}
  levels = Cast <to = 1> (cropped)
  scaled = Mul (levels, scale)
  pixel_values = Add (scaled, shift)
}}
"""
_SQUASHED = ("new_sides = Identity (sides)", "cropped = Identity (resized)")
# The shorter side becomes the edge, the longer keeps the ratio, rounded down to a pixel; the crop starts at half the
# margin, rounded half to even: both as in torchvision.
_CROPPED = (
    """old_sides = Shape <start = 2, end = 4> (nchw)
  short_side = ReduceMin <keepdims = 1> (old_sides)
  larger = Mul (old_sides, edge)
  new_sides = Div (larger, short_side)""",
    """margins = Sub (new_sides, sides)
  margins_float = Cast <to = 1> (margins)
  half_margins = Mul (margins_float, half)
  starts_float = Round (half_margins)
  starts = Cast <to = 7> (starts_float)
  ends = Add (starts, sides)
  cropped = Slice (resized, starts, ends, axes)""",
)


def build_resize_graph(spec: ImageSpec) -> onnx.ModelProto:
    """Return the graph `pixels` (H, W, 3) uint8 RGB -> `pixel_values` (1, 3, S, S) float32 for one image spec."""
    (before, after), constants = _SQUASHED, ""
    if spec.resize != "squash":
        before, after = _CROPPED
        constants = f", int64[2] axes = {{2, 3}}, float half = {{0.5}}, int64[1] edge = {{{spec.shortest_edge}}}"
    mode = _MODES[spec.interpolation]
    model = onnx.parser.parse_model(
        _GRAPH.format(side=spec.size, mode=mode, constants=constants, before=before, after=after)
    )
    std = np.array(spec.std)
    # (x / 255 - mean) / std as one multiplication and one addition.
    for name, value in (("scale", 1 / (255 * std)), ("shift", -np.array(spec.mean) / std)):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32).reshape(1, 3, 1, 1), name))
    onnx.checker.check_model(model, full_check=True)
    return model
