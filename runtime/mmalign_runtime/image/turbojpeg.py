"""A JPEG's pixels from libjpeg-turbo itself, where the package simplejpeg is installed: the same pixels, sooner.

Pillow opens every picture, reads its tags and decides what is damaged. What it would decode to grey or RGB without a
warning of libjpeg's is decoded here, straight into an array; everything else goes back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import cast

import PIL
from PIL import Image

from mmalign_runtime.image.arrays import Pixels

_PACKAGE = "simplejpeg"
_MODES = frozenset({"RGB", "L"})
# Below this a scale cannot be told by the size that it leaves: 3/8 and 1/2 of four pixels are two.
_LEAST_SIDE = 8

_Decode = Callable[..., Pixels]


def decode_jpeg(raw: bytes, opened: Image.Image) -> Pixels | None:
    """Return the pixels (H, W, 3) uint8 of a JPEG, at the scale that was asked of the picture opened from it.

    None where Pillow has to decode it: without simplejpeg, for other colours than grey and RGB, and where libjpeg has
    anything to say.
    """
    decode = _decoder()
    if decode is None or opened.mode not in _MODES or max(opened.size) < _LEAST_SIDE:
        return None
    try:
        # The smallest scale of n/8 that leaves as many pixels is the one that Pillow took.
        pixels = decode(raw, "RGB", min_height=opened.height, min_width=opened.width, strict=True)
    except (ValueError, RuntimeError):  # a warning; Pillow passes over some of them
        return None
    return pixels if pixels.shape == (opened.height, opened.width, 3) else None


def jpeg_decoder() -> str:
    """Name the package that decodes plain JPEGs here, and its version."""
    return f"Pillow {PIL.__version__}" if _decoder() is None else f"{_PACKAGE} {import_module(_PACKAGE).__version__}"


@cache
def _decoder() -> _Decode | None:
    try:
        return cast("_Decode", import_module(_PACKAGE).decode_jpeg)
    except ImportError:
        return None
