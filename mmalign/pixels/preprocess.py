"""The preprocessing graph of an image spec: the one definition of its pixels, for trainer and runtime alike.

Why a graph: Pillow 12 and 13, torchvision and JavaScript each resize a little differently. It is put together in
mmalign.pixels.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from mmalign.pixels.graph import build_graph
from mmalign_runtime.spec import ImageSpec


def build_preprocess(spec: ImageSpec) -> onnx.ModelProto:
    """Return the graph `pixels` (h, w, C) uint8, C of 1 to 4 -> `pixel_values` (1, 3, H, W) float32 of an image spec.

    Raises ValueError for a spec that no graph can follow.
    """
    check_image_spec(spec)
    return build_graph(spec)


def write_preprocess(spec: ImageSpec, path: Path) -> None:
    """Write the graph of one image spec to a file."""
    path.write_bytes(build_preprocess(spec).SerializeToString(deterministic=True))


def check_image_spec(spec: ImageSpec) -> None:
    """Raise ValueError for a crop larger than what it is cut from, an area that is not whole patches, and a deviation
    that is not positive.
    """
    if spec.resize == "naflex" and spec.num_patches * spec.shortest_edge**2 != spec.shape[0] * spec.shape[1]:
        raise ValueError(
            f"size {spec.shape[0]} x {spec.shape[1]} (height x width) is not a number of patches of "
            f"{spec.shortest_edge} x {spec.shortest_edge} (shortest_edge). Set both so that one divides the other"
        )
    (height, width), crop = spec.resized_shape, spec.shape
    if spec.resize in ("shortest_edge", "resize_then_crop") and (height < crop[0] or width < crop[1]):
        field = "shortest_edge" if spec.resize == "shortest_edge" else "resize_size"
        raise ValueError(
            f"{field} gives {height} x {width} pixels (height x width), less than size {crop[0]} x {crop[1]}: nothing "
            f"is left to crop. Set {field} to at least the size"
        )
    if min(spec.std) <= 0:
        raise ValueError(f"std {spec.std} divides by a number that is not positive; it is of values in 0..1")
