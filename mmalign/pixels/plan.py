"""What one preprocessing graph does to a picture: the fields of an image spec that decide about pixels.

Shapes: H and W are the sides of what comes out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mmalign_runtime.spec import ImageSpec, Rgb

Resize = Literal["squash", "shortest_edge", "longest_edge", "resize_then_crop"]
Rounding = Literal["half_even", "floor"]
Levels = tuple[int, int, int]


class PixelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """From decoded pixels to (1, 3, H, W); `shape` is (H, W), `resized_shape` the (height, width) before the crop.

    `resize` is one of

    - "squash": both sides to `shape`; `resized_shape` is the same;
    - "shortest_edge": the picture covers `resized_shape` with its ratio kept, then a centred crop of `shape`;
    - "longest_edge": the picture fits into `shape` with its ratio kept, centred, the rest is `fill` (R, G, B);
    - "resize_then_crop": both sides to `resized_shape`, then a centred crop of `shape`.

    `side_rounding` is of the side that the ratio gives, `crop_rounding` of half the margin where the crop or the fill
    begins. Alpha is "composited" on `background` (R, G, B) before the resize, or "dropped". `mean` and `std` are of
    values in 0..1.
    """

    shape: tuple[int, int]
    resize: Resize
    resized_shape: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"]
    mean: Rgb
    std: Rgb
    background: Levels
    alpha: Literal["composited", "dropped"] = "composited"
    fill: Levels = (0, 0, 0)
    side_rounding: Rounding = "floor"
    crop_rounding: Rounding = "half_even"

    def __post_init__(self) -> None:
        """Raise ValueError when a crop would be larger than what it is cut from, or a `std` is not positive."""
        cut, crop = self.resized_shape, self.shape
        if self.resize in ("shortest_edge", "resize_then_crop") and (cut[0] < crop[0] or cut[1] < crop[1]):
            raise ValueError(
                f"a picture of {cut[0]} x {cut[1]} (height x width) is smaller than the crop of {crop[0]} x {crop[1]}: "
                "resize to at least the size of the crop"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} divides by a number that is not positive; it is of values in 0..1")


def plan_of(spec: ImageSpec) -> PixelPlan:
    """Return what the graph of an image spec does. Raises ValueError for a spec that no graph can follow."""
    if spec.resize == "shortest_edge" and spec.shortest_edge < spec.size:
        raise ValueError(f"shortest_edge {spec.shortest_edge} is less than size {spec.size}: nothing is left to crop")
    edge = spec.size if spec.resize == "squash" else spec.shortest_edge
    return PixelPlan(
        shape=(spec.size, spec.size),
        resize=spec.resize,
        resized_shape=(edge, edge),
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        background=spec.background,
    )
