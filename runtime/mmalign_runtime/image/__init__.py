"""From an item to its pixels.

`decode` is the way in. `formats` says what the bytes are, `opening` asks `limits` before a plugin sees the file, `jpeg`
and `tiff` find the damage that decoders pass over, `turbojpeg` takes plain JPEGs off Pillow where its package is
installed, `colour` and `icc` bring every mode to RGB.
"""

from __future__ import annotations

from mmalign_runtime.image.arrays import Pixels
from mmalign_runtime.image.decode import (
    DetachedImage,
    WantedPixels,
    decode_detached,
    decode_image,
    describe,
    detach_image,
)
from mmalign_runtime.image.opening import ImageItem
from mmalign_runtime.image.turbojpeg import jpeg_decoder

__all__ = [
    "DetachedImage",
    "ImageItem",
    "Pixels",
    "WantedPixels",
    "decode_detached",
    "decode_image",
    "describe",
    "detach_image",
    "jpeg_decoder",
]
