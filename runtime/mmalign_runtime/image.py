"""From an item (path, bytes, file, PIL image, array) to its pixels: (H, W, 3) uint8 RGB.

This is all that happens outside the preprocessing graph: open, check the header against the limit, decode, turn as EXIF
says, and bring every colour mode to RGB. Resize, crop and normalisation are the graph's.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec

ImageItem: TypeAlias = str | Path | bytes | IO[bytes] | Image.Image | NDArray[np.uint8]
Pixels: TypeAlias = NDArray[np.uint8]

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
# 65535 = 255 * 257: dividing by 257 maps the 16-bit range onto the 8-bit one exactly at both ends.
_SIXTEEN_TO_EIGHT = 257
# What Pillow's plugins raise on damaged bytes, found by corrupting files of eleven formats (RuntimeError is AVIF's).
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, RuntimeError)


def decode_image(item: ImageItem, spec: ImageSpec, *, index: int = 0) -> Pixels:
    """Decode one item to (H, W, 3) uint8 RGB, C-contiguous.

    EXIF orientation is honoured; alpha is composited on `spec.background`; palette, grey, 16-bit, CMYK and 1-bit images
    become RGB; of an animation the first frame counts. Arrays must be (H, W, 3) uint8 RGB already.

    Raises ItemError carrying `index`, the item's name and the stage: "open" when there is no such file or it is no
    image, "decode" when it is truncated, too large, or its mode is not known.
    """
    source = describe(item)
    if isinstance(item, np.ndarray):
        pixels = _check_array(item, source, index)
        _check_size((pixels.shape[1], pixels.shape[0]), spec, source, index)
        return pixels
    try:
        with _open(item) as image:
            _check_size(image.size, spec, source, index)
            _check_mode(image.mode, source, index)
            return _to_rgb(image, spec)
    except ItemError:
        raise
    except FileNotFoundError as error:
        raise ItemError(index, source, "open", "there is no such file. Check the path.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ItemError(index, source, "open", f"{error.strerror}; expected a readable file.") from error
    except UnidentifiedImageError as error:
        raise ItemError(index, source, "open", _unidentified(item)) from error
    except Image.DecompressionBombError as error:
        raise ItemError(index, source, "decode", f"{error} Scale the image down first.") from error
    except _DAMAGED as error:
        reason = f"the file cannot be decoded ({error}). It is damaged or incomplete: replace it."
        raise ItemError(index, source, "decode", reason) from error


def describe(item: object) -> str:
    """Name an item for an error message: its path, or its type and size."""
    if isinstance(item, str | Path):
        return str(item)
    if isinstance(item, bytes):
        return f"{len(item)} bytes"
    if isinstance(item, np.ndarray):
        return f"array {item.shape} {item.dtype}"
    return str(getattr(item, "name", None) or getattr(item, "filename", None) or type(item).__name__)


def _open(item: ImageItem) -> Image.Image:
    if isinstance(item, Image.Image):
        return item.copy()  # the caller's image stays open, and as it was
    if isinstance(item, bytes):
        return Image.open(io.BytesIO(item))
    if isinstance(item, np.ndarray):
        raise TypeError("arrays are not opened")
    if isinstance(item, str | Path) or hasattr(item, "read"):
        return Image.open(item)
    raise TypeError(f"a {type(item).__name__} is no image: pass a path, bytes, a file, a PIL image or an array")


def _unidentified(item: ImageItem) -> str:
    if item == b"" or (isinstance(item, str | Path) and Path(item).stat().st_size == 0):
        return "the file is empty. Replace it."
    return "the bytes are no image in a format that Pillow reads here. Check the file, or convert it to JPEG or PNG."


def _check_array(array: NDArray[np.uint8], source: str, index: int) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        seen = f"seen shape {array.shape} and dtype {array.dtype}"
        reason = f"{seen}, expected (H, W, 3) uint8 RGB in 0..255. Convert it."
        raise ItemError(index, source, "decode", reason)
    return np.ascontiguousarray(array)


def _check_size(size: tuple[int, int], spec: ImageSpec, source: str, index: int) -> None:
    width, height = size
    if width * height > spec.max_pixels:
        reason = f"{width} x {height} is more than the {spec.max_pixels} pixels that the bundle allows. Scale it down."
        raise ItemError(index, source, "decode", reason)
    # Scaling by the shorter side stretches a thin strip without limit: 1 x 100,000 would become 256 x 25,600,000.
    resized = spec.shortest_edge**2 * max(size) // max(1, min(size))
    if spec.resize == "shortest_edge" and resized > spec.max_pixels:
        reason = f"{width} x {height} is too thin: resized, it has {resized} pixels, over {spec.max_pixels}. Crop it."
        raise ItemError(index, source, "decode", reason)


def _check_mode(mode: str, source: str, index: int) -> None:
    if mode == "F":  # no range is agreed on for floats: 0..1 would come out black without a word
        reason = "seen float pixels (mode F), expected 8 or 16 bits a channel. Convert the image to 8 bits."
        raise ItemError(index, source, "decode", reason)


def _to_rgb(image: Image.Image, spec: ImageSpec) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT_MODES:
        levels = np.asarray(upright).astype(np.int64) // _SIXTEEN_TO_EIGHT
        upright = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    if upright.mode in _ALPHA_MODES or "transparency" in upright.info:
        canvas = Image.new("RGBA", upright.size, (*spec.background, 255))
        canvas.alpha_composite(upright.convert("RGBA"))
        upright = canvas
    return np.array(upright.convert("RGB"))  # (H, W, 3)
