"""What Pillow 12 makes of a picture, by the words of an image spec and none of the graph's code."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign_runtime.image.colour import to_rgb
from mmalign_runtime.spec import ImageSpec, Rounding

Pixels = NDArray[np.uint8]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def with_pillow(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Resize, and crop or fill, (h, w, C), and return levels (H, W, 3)."""
    rgb = _rgb(pixels, spec)
    height, width = _resized(spec, rgb.height, rgb.width)
    resized = _resize(rgb, height, width, _RESAMPLE[spec.interpolation])
    if spec.resize == "squash":
        return np.asarray(resized)
    top, left = (_first(inner, outer, spec) for inner, outer in zip(spec.shape, (height, width), strict=True))
    room = Image.new("RGB", spec.shape[::-1], spec.fill)
    room.paste(resized, (-left, -top))
    return np.asarray(room)


def _rgb(pixels: Pixels, spec: ImageSpec) -> Image.Image:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])
    return to_rgb(picture, spec)


def _resize(image: Image.Image, height: int, width: int, resample: Image.Resampling) -> Image.Image:
    # A picture of more than 100 times its width is resized by rows first; the two steps make it columns first again.
    if image.height > 100 * image.width:
        image = image.resize((width, image.height), resample)
    return image.resize((width, height), resample)


def _resized(spec: ImageSpec, height: int, width: int) -> tuple[int, int]:
    if spec.resize in ("squash", "resize_then_crop"):
        return spec.resized_shape
    scales = Fraction(spec.resized_shape[0], height), Fraction(spec.resized_shape[1], width)
    scale = max(scales) if spec.resize == "shortest_edge" else min(scales)
    new_height, new_width = (max(1, _rounded(side * scale, spec.side_rounding)) for side in (height, width))
    return new_height, new_width


def _first(inner: int, outer: int, spec: ImageSpec) -> int:
    half = _rounded(Fraction(abs(outer - inner), 2), spec.crop_rounding)
    return half if outer >= inner else -half


def _rounded(value: Fraction, rounding: Rounding) -> int:
    return round(value) if rounding == "half_even" else int(value)  # Python rounds a half to even
