"""The way from a picture to `pixel_values`, and what a picture may cost.

Shapes: B batch, H and W image sides, N patches, P pixels of a patch's side.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Rgb = tuple[float, float, float]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]
Side = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
# One number for both sides, or (height, width). Not tuple[Side, Side]: where that stands beside a number with bounds,
# msgspec 0.22 crashes the process when it exits.
Size: TypeAlias = Side | Annotated[tuple[Side, ...], msgspec.Meta(min_length=2, max_length=2)]
Resize = Literal["squash", "shortest_edge", "longest_edge", "resize_then_crop", "naflex"]
Rounding = Literal["half_even", "floor"]
Interpolation = Literal["bilinear", "bicubic"]

# Row and column, which end a patch's values.
PLACE = 2
# ImageNet statistics (Deng et al. 2009, as published with torchvision's ResNet-50 weights), of values in 0..1.
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image may cost, checked before any pixel is decoded. Limits refuse images; they do not move vectors.

    Attributes:
        max_pixels: Pixels of the picture that the header promises.
        max_bytes: Bytes of the file as stored.
        max_side: Pixels of the longer side.
        max_aspect_ratio: The longer side over the shorter one.
    """

    max_pixels: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 268_435_456
    max_side: Annotated[int, msgspec.Meta(ge=1)] = 65_535
    max_aspect_ratio: Annotated[float, msgspec.Meta(ge=1)] = 200.0


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way from a file's pixels to `pixel_values` (B, 3, H, W) float32, of patches (B, N, 3 P^2 + 2).

    A patch is its pixels, row by row, R, G and B of each, and its place in the picture's grid: its row and its column,
    counted from 1. Places of 0 mark the padding behind the last patch.

    Attributes:
        size: Pixels of both sides of `pixel_values`, or (height, width).
        resize: "squash": both sides to `size`. "shortest_edge": the shorter side to `shortest_edge`, then a centred
            crop of `size`. "longest_edge": the picture fitted into `size` with its ratio kept, centred, the rest filled
            with `fill`. "resize_then_crop": both sides to `resize_size`, then a centred crop of `size`. "naflex": the
            picture at its own ratio, as large as the area of `size` allows, cut into square patches. Both sides are
            rounded up to whole patches; N is how many the area holds.
        shortest_edge: Pixels of the shorter side before the crop, for `resize = "shortest_edge"`; of a patch's side, P,
            the shortest that a picture may have, for `resize = "naflex"`.
        resize_size: Pixels of both sides, or (height, width), before the crop, for `resize = "resize_then_crop"`.
        fill: R, G, B in 0..255 around the picture, for `resize = "longest_edge"`.
        side_rounding: How a side that the ratio gives is rounded.
        crop_rounding: How the offset of a crop or a fill is rounded.
        interpolation: The filter of the resize, antialiased.
        mean: Mean of R, G and B, of values in 0..1, that is subtracted.
        std: Standard deviation of R, G and B, of values in 0..1, that is divided by.
        orientation: "applied" turns a picture as its EXIF block says.
        alpha: "composited" puts transparent pixels on `background` before any resize; "dropped" ignores alpha.
        background: R, G, B in 0..255 under transparent pixels.
        icc_profile: "ignore" takes the stored numbers as they are, as torchvision and transformers do; "to_srgb"
            converts pictures that carry a colour profile.
        jpeg_oversampling: A JPEG is decoded at the smallest DCT scale (1/8, 1/4, 1/2 or 1) whose shorter side is
            still at least this many times the side that it is resized to. 0 decodes in full.
        limits: What an image may cost.
    """

    size: Size = 224
    resize: Resize = "squash"
    shortest_edge: Annotated[int, msgspec.Meta(ge=1)] = 256
    resize_size: Size | None = None
    fill: tuple[Level, Level, Level] = (0, 0, 0)
    side_rounding: Rounding = "floor"
    crop_rounding: Rounding = "half_even"
    interpolation: Interpolation = "bilinear"
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    orientation: Literal["applied", "ignored"] = "applied"
    alpha: Literal["composited", "dropped"] = "composited"
    background: tuple[Level, Level, Level] = (255, 255, 255)
    icc_profile: Literal["ignore", "to_srgb"] = "ignore"
    jpeg_oversampling: Annotated[int, msgspec.Meta(ge=0)] = 2
    limits: ImageLimits = ImageLimits()

    def __post_init__(self) -> None:
        """Raise ValueError where "resize_then_crop" lacks its first size, or another mode has one."""
        if (self.resize == "resize_then_crop") != (self.resize_size is not None):
            raise ValueError(
                f"resize is {self.resize!r} and resize_size {self.resize_size}: set resize_size with "
                "'resize_then_crop', and only there"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of `pixel_values`."""
        return _both(self.size)

    @property
    def num_patches(self) -> int:
        """N: how many patches of `shortest_edge` pixels the area of `size` holds, for `resize = "naflex"`."""
        height, width = self.shape
        return height * width // self.shortest_edge**2

    @property
    def values_shape(self) -> tuple[int, ...]:
        """Shape of one picture's `pixel_values`: (3, H, W), of patches (N, 3 P^2 + 2)."""
        if self.resize == "naflex":
            return self.num_patches, 3 * self.shortest_edge**2 + PLACE
        return 3, *self.shape

    @property
    def resized_shape(self) -> tuple[int, int]:
        """(height, width) that a picture is resized to before any crop; the ratio may make a side less, or more."""
        if self.resize == "shortest_edge":
            return _both(self.shortest_edge)
        return self.shape if self.resize_size is None else _both(self.resize_size)


def _both(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
