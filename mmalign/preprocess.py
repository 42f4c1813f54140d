"""The preprocessing graph of an image spec: the one definition of its pixels, for trainer and runtime alike.

Why a graph: Pillow 12 and 13, torchvision and JavaScript each resize a little differently. It is put together in
mmalign.pixels.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from mmalign.pixels.graph import build_graph
from mmalign.pixels.plan import plan_of
from mmalign_runtime.spec import ImageSpec


def build_preprocess(spec: ImageSpec) -> onnx.ModelProto:
    """Return the graph `pixels` (h, w, C) uint8, C of 1 to 4 -> `pixel_values` (1, 3, S, S) float32 of an image spec.

    Raises ValueError for a spec that no graph can follow.
    """
    return build_graph(plan_of(spec))


def write_preprocess(spec: ImageSpec, path: Path) -> None:
    """Write the graph of one image spec to a file."""
    path.write_bytes(build_preprocess(spec).SerializeToString(deterministic=True))


def check_image_spec(spec: ImageSpec) -> None:
    """Raise ValueError when a crop would be larger than the resized image, or a standard deviation is not positive."""
    plan_of(spec)
