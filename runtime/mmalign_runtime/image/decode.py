"""From an item (path, bytes, file, PIL image, array) to its pixels: (H, W, 3) uint8 RGB.

This is all that happens outside the preprocessing graph: open, check the header against the limits, decode, bring every
colour mode to RGB, and turn as EXIF says. Resize, crop and normalisation are the graph's.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from PIL import ExifTags, Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image.arrays import Pixels, check_array
from mmalign_runtime.image.colour import to_rgb
from mmalign_runtime.image.jpeg import reduce_scale
from mmalign_runtime.image.limits import check_size
from mmalign_runtime.image.opening import ImageItem, Opened, detach, open_image
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.image.turbojpeg import decode_jpeg
from mmalign_runtime.spec import ImageSpec

logger = logging.getLogger(__name__)

# What Pillow's plugins raise on damaged bytes, found by corrupting files of eleven formats (RuntimeError is AVIF's);
# MemoryError is a damaged length.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
)
_NAME_LENGTH = 200
# How the camera was held, and what sets the picture upright (TIFF 6.0, tag 274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))

# From the (height, width) of a stored JPEG, upright, to those that must be left of it at least. 0 are all.
WantedPixels: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]


class DetachedImage(msgspec.Struct, frozen=True):
    """An item that hangs on nothing of its caller's any more, so that another thread may decode it; and its name."""

    item: ImageItem
    source: str


def decode_image(item: ImageItem, spec: ImageSpec, *, index: int = 0, wanted: WantedPixels | None = None) -> Pixels:
    """Decode one item to (H, W, 3) uint8 RGB, C-contiguous, to be read only.

    A JPEG is decoded at the smallest DCT scale that `spec.jpeg_oversampling` allows, so H and W may be 1/2, 1/4 or 1/8
    of what is stored, rounded up. So is a PIL image of a JPEG that nobody has loaded yet; a loaded one, like an array,
    is taken as it is. Who needs other pixels than the spec, such as those of a crop, says so by `wanted`.

    EXIF orientation is honoured, and alpha composited on `spec.background`, unless the spec says otherwise; palette,
    grey, 16-bit, float, CMYK and 1-bit images become RGB; of an animated file the first frame counts, a PIL image is
    taken at its current frame. A file
    object is read from its start. Arrays must be (H, W, 3) uint8 already, and RGB: BGR cannot be told by looking.

    Raises ItemError carrying `index`, the item's name and the stage: "open" when there is no such file or it is no
    image, "decode" when it is truncated, outside `spec.limits`, or its pixels have no agreed meaning.
    """
    return decode_detached(detach_image(item, spec, index=index), spec, index=index, wanted=wanted)


def detach_image(item: ImageItem, spec: ImageSpec, *, index: int = 0) -> DetachedImage:
    """Read what only the caller's own thread may touch: a file object, and a PIL image that is not loaded yet.

    Raises ItemError as `decode_image` does.
    """
    source = describe(item)
    with _named(index, source):
        return DetachedImage(detach(item, spec), source)


def decode_detached(
    detached: DetachedImage, spec: ImageSpec, *, index: int = 0, wanted: WantedPixels | None = None
) -> Pixels:
    """Decode a detached item as `decode_image` does. Safe to call from any thread."""
    with _named(index, detached.source):
        return _decode(detached.item, spec, detached.source, wanted or _wanted_by(spec))


@contextmanager
def _named(index: int, source: str) -> Iterator[None]:
    """Make an ItemError of whatever is wrong with one item."""
    try:
        yield
    except Refusal as refusal:
        raise ItemError(index, source, refusal.stage, refusal.reason) from refusal
    except FileNotFoundError as error:
        raise ItemError(index, source, "open", "there is no such file. Check the path.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # A GIF's frame larger than its screen, and a WebP since Pillow 13, are held against Pillow's own limit as well.
        reason = f"{error} This limit is Pillow's own, PIL.Image.MAX_IMAGE_PIXELS: raise it, or scale the image down."
        raise ItemError(index, source, "decode", reason) from error
    except (*_DAMAGED, Warning) as error:  # a warning, where the process turns them into errors
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not the decoder's
            raise ItemError(index, source, "open", f"{error.strerror}; expected a readable file.") from error
        reason = f"the file cannot be decoded ({error}). It is damaged, incomplete or of a rare kind: replace it."
        raise ItemError(index, source, "decode", reason) from error


def describe(item: object) -> str:
    """Name an item for an error message: its path, or its type and size."""
    if isinstance(item, str | Path):
        return _shown(str(item))
    if isinstance(item, bytes | bytearray):
        return f"{len(item)} bytes"
    if isinstance(item, np.ndarray):
        return f"array {item.shape} {item.dtype}"
    named = getattr(item, "name", None) or getattr(item, "filename", None)
    return _shown(named) if isinstance(named, str) and named else type(item).__name__


def _shown(name: str) -> str:
    return name if 0 < len(name) <= _NAME_LENGTH and name.isprintable() else ascii(name[:_NAME_LENGTH])


def _wanted_by(spec: ImageSpec) -> WantedPixels:
    side = spec.jpeg_oversampling * max(spec.resized_shape)
    return lambda stored: (side, side)


def _decode(item: ImageItem, spec: ImageSpec, source: str, wanted: WantedPixels) -> Pixels:
    if isinstance(item, np.ndarray):
        pixels = check_array(item)
        check_size((pixels.shape[1], pixels.shape[0]), spec)
        return pixels
    with open_image(item, spec) as opened:
        turn = None if opened.jpeg is None else _turn(opened.image, spec, source)
        if opened.jpeg is not None:
            _reduce(opened.image, turn, wanted)
        plain = _plain_jpeg(opened, spec)
        if plain is None:
            opened.load()
        if opened.jpeg is None:
            turn = _turn(opened.image, spec, source)  # only now: a PNG's EXIF block may stand behind its pixels
        if plain is not None and turn is None:
            return plain
        rgb = to_rgb(opened.image, spec) if plain is None else Image.fromarray(plain)
        return np.asarray(rgb if turn is None else rgb.transpose(turn))  # (H, W, 3)


def _reduce(image: Image.Image, turn: Image.Transpose | None, wanted: WantedPixels) -> None:
    width, height = image.size
    if turn in _ON_ITS_SIDE:
        reduce_scale(image, wanted((width, height))[::-1])
    else:
        reduce_scale(image, wanted((height, width)))


def _plain_jpeg(opened: Opened, spec: ImageSpec) -> Pixels | None:
    """Return the pixels of a JPEG that Pillow is not needed for, as stored: not turned yet."""
    has_profile = spec.icc_profile == "to_srgb" and "icc_profile" in opened.image.info
    return None if opened.jpeg is None or has_profile else decode_jpeg(opened.jpeg.raw, opened.image)


def _turn(image: Image.Image, spec: ImageSpec, source: str) -> Image.Transpose | None:
    return _UPRIGHT.get(_orientation(image, source)) if spec.orientation == "applied" else None


def _orientation(image: Image.Image, source: str) -> int:
    """Return the EXIF orientation. A damaged EXIF block does not lose the picture: it is taken as it is stored.

    Not so where the process turns Pillow's warnings into errors: a block read halfway would turn the picture or not by
    the process's filters, so there it is an error of the item.
    """
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED as error:
        logger.warning("%s: its EXIF block cannot be read (%s); taken as it is stored", source, error)
        return 1
    return found if isinstance(found, int) else 1
