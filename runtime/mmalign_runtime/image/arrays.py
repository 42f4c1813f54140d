"""Arrays as images: (H, W, 3) uint8 RGB and nothing else. What could be read two ways is refused, never guessed.

BGR cannot be told from RGB by looking: arrays are RGB by contract.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.image.refusal import Refusal

Pixels = NDArray[np.uint8]

_CHANNELS = 3
_EXPECTED = "expected (H, W, 3) uint8 RGB in 0..255"
# Arrays of other channels, by their count, and how to get three.
_TO_RGB = {
    1: "np.repeat(array, 3, axis=2) if it is grey",
    2: "composite grey and alpha on a background first, for example with PIL.Image.fromarray(array, 'LA')",
    4: "pass PIL.Image.fromarray(array) if it is RGBA, so that alpha meets the bundle's background",
}


def check_array(array: NDArray[np.generic]) -> Pixels:
    """Return an array of pixels, C-contiguous. Raises Refusal that says which conversion is missing."""
    fix = _masked(array) or _dtype_fix(array) or _shape_fix(array)
    if fix:
        raise Refusal("decode", f"seen shape {array.shape} and dtype {array.dtype}, {_EXPECTED}: {fix}.")
    return np.ascontiguousarray(array, dtype=np.uint8)  # (H, W, 3)


def _masked(array: NDArray[np.generic]) -> str:
    return "a masked array hides pixels: fill them with array.filled(value)" if np.ma.isMaskedArray(array) else ""


def _dtype_fix(array: NDArray[np.generic]) -> str:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return ""
    if kind == "f":
        return _float_fix(array)
    if kind == "b":
        return "use array.astype(np.uint8) * 255"
    if array.dtype == np.uint16:
        return "use (array // 257).astype(np.uint8) if white is 65535; other ranges are yours to know"
    if kind in "iu":
        return f"use array.astype(np.uint8) if its values are in 0..255 ({_range(array)})"
    return "these are not pixel values. Pass the picture's path or bytes, or convert it to uint8"


def _float_fix(array: NDArray[np.generic]) -> str:
    conversion = "np.rint(array * 255).astype(np.uint8) where 1 is white, np.rint(array).astype(np.uint8) where 255 is"
    return f"a float's range is not known from its values ({_range(array)}): use {conversion}"


def _range(array: NDArray[np.generic]) -> str:
    return f"seen {array.min()} to {array.max()}" if array.size else "it is empty"


def _shape_fix(array: NDArray[np.generic]) -> str:
    shape = array.shape
    if array.size == 0:
        return "it has no pixels"
    if array.ndim == 2:
        return "use np.repeat(array[:, :, None], 3, axis=2) if it is grey"
    if array.ndim == 4:
        return "pass the images of a batch one by one: list(array)"
    if array.ndim != _CHANNELS:
        return "pass one image"
    if shape[0] == shape[2] == _CHANNELS:
        return "3 rows or 3 channels first? It cannot be told; pass PIL.Image.fromarray(array) if it is (H, W, 3)"
    if shape[2] == _CHANNELS:
        return ""
    if shape[0] == _CHANNELS:
        return "channels come first (CHW): use array.transpose(1, 2, 0)"
    return _TO_RGB.get(shape[2], "keep three channels, in the order red, green, blue")
