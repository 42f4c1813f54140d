"""Pictures with a colour profile to sRGB, for bundles that ask for it (`icc_profile = "to_srgb"`).

Relative colorimetric with black point compensation: white stays white, and colours that sRGB has stay as they are. A
profile that is sRGB is found by what it does to colours, not by its name, and leaves the pixels alone.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from mmalign_runtime.image.refusal import Refusal

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # an ICC colour space, and Pillow's mode for it
_CACHED_PROFILES = 32
# A lattice of colours that tells sRGB from other spaces: 9 levels a channel, moved by one level at most (rounding).
_LATTICE_LEVELS = 9
_ROUNDING = 1
_FIX = "Strip the profile if its numbers are sRGB, or convert the picture to sRGB."


def to_srgb(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """Return a picture in mode RGB, converted to sRGB by `icc_profile`. Raises Refusal where it does not fit."""
    space = _space(icc_profile)
    mode = _SPACES.get(space)
    grey_or_colour = image if image.mode in ("L", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")
    if grey_or_colour.mode == "L" and mode == "RGB":  # grey is that space's R = G = B
        grey_or_colour = grey_or_colour.convert("RGB")
    if grey_or_colour.mode != mode:
        raise Refusal("decode", f"its ICC profile is for {space}, its pixels are {image.mode}. {_FIX}")
    transform = _transform(icc_profile, mode)
    if transform is None:
        return grey_or_colour.convert("RGB")
    converted = ImageCms.applyTransform(grey_or_colour, transform)
    assert converted is not None  # only in-place conversion returns nothing
    return converted


def _space(icc_profile: bytes) -> str:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError) as error:
        raise Refusal("decode", f"its ICC profile cannot be read ({error}). {_FIX}") from error


@lru_cache(maxsize=_CACHED_PROFILES)
def _transform(icc_profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of a profile to sRGB, or None when it changes nothing."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError) as error:
        raise Refusal("decode", f"its ICC profile cannot be used ({error}). {_FIX}") from error
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, _LATTICE_LEVELS).astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)  # (1, 729, 3)
    lattice = Image.fromarray(rgb) if mode == "RGB" else Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    converted = ImageCms.applyTransform(lattice, transform)
    before = np.asarray(lattice.convert("RGB")).astype(int)
    return bool(np.abs(np.asarray(converted).astype(int) - before).max() <= _ROUNDING)
