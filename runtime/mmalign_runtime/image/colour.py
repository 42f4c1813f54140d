"""From a decoded picture of any mode to RGB on the spec's background.

What a number means is taken from the format that stored it: 16 bits reach from 0 to 65535, a float TIFF from 0 to 1.
Where no format says it, the picture is refused with the range that was seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign_runtime.image.icc import to_srgb
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.image.tiff import is_inverted, level_range
from mmalign_runtime.spec import ImageSpec

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# In these formats Pillow's 32-bit mode holds 16-bit levels: netpbm's larger maxima are scaled to 65535.
_SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_COLOUR_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
_WHITE = 255
_SCALE = "Scale it to 8 or 16 bits a channel."


def to_rgb(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Return a picture in mode RGB. Raises Refusal for pixels whose range or mode no convention fixes."""
    icc_profile = _profile(image) if spec.icc_profile == "to_srgb" else None
    levels = _to_eight_bits(image)
    if levels.mode not in _COLOUR_MODES | _ALPHA_MODES:
        raise Refusal("decode", f"seen pixels of mode {levels.mode}, expected grey, RGB or CMYK. Convert it to RGB.")
    colour, alpha = _split_alpha(levels)
    rgb = _as_rgb(colour) if icc_profile is None else to_srgb(colour, icc_profile)
    return rgb if alpha is None or spec.alpha == "dropped" else _composite(rgb, alpha, spec)


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _profile(image: Image.Image) -> bytes | None:
    icc_profile = image.info.get("icc_profile")
    if icc_profile is None and "icc_profile" in image.info and image.format in ("JPEG", "PNG"):
        reason = "its ICC profile is damaged, and the bundle asks for sRGB. Strip the profile, or convert it to sRGB."
        raise Refusal("decode", reason)
    return icc_profile or None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        return _from_levels(image)
    if image.mode == "I":
        seen = "seen 32-bit or signed pixels (mode I)"
        raise Refusal("decode", f"{seen}{_range(np.asarray(image))}, whose white no format fixes. {_SCALE}")
    return _from_floats(image) if image.mode == "F" else image


def _from_levels(image: Image.Image) -> Image.Image:
    black, white = level_range(image)
    stored = np.asarray(image).astype(np.int64)  # (H, W)
    levels = np.clip((stored - black) * np.sign(white - black) * _WHITE // abs(white - black), 0, _WHITE)
    grey = Image.fromarray(levels.astype(np.uint8))
    if "transparency" in image.info:  # the one level that is clear
        clear = stored == image.info["transparency"]
        grey.putalpha(Image.fromarray(np.where(clear, 0, _WHITE).astype(np.uint8)))
    return grey


def _from_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)  # (H, W)
    if is_inverted(image):
        raise Refusal("decode", f"seen float pixels (mode F) where 0 is white. {_SCALE}")
    if not (values.min() >= 0 and values.max() <= 1):  # also where one is NaN
        reason = f"seen float pixels (mode F){_range(values)}, expected 0 to 1. {_SCALE}"
        raise Refusal("decode", reason)
    return Image.fromarray(np.floor(values * np.float32(_WHITE) + np.float32(0.5)).astype(np.uint8))


def _range(values: NDArray[np.generic]) -> str:
    return f" from {values.min():g} to {values.max():g}"


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image, None
    if image.mode in ("L", "LA", "La"):
        grey = image.convert("LA")
        return grey.getchannel("L"), grey.getchannel("A")
    rgba = image.convert("RGBA")
    return rgba.convert("RGB"), rgba.getchannel("A")


def _composite(rgb: Image.Image, alpha: Image.Image, spec: ImageSpec) -> Image.Image:
    rgb.putalpha(alpha)  # never the caller's image: the split made a new one
    canvas = Image.new("RGBA", rgb.size, (*spec.background, _WHITE))
    canvas.alpha_composite(rgb)
    return canvas.convert("RGB")
