"""What a TIFF's directory says beyond the size: a thumbnail of camera RAW, tiles larger than the picture, its white."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

from mmalign_runtime.image.refusal import Refusal

# TIFF 6.0 and TIFF/EP.
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262
_TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 322, 323, 50706
_READ = (_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH)
_REDUCED = 1
_WHITE_IS_ZERO = 0
# A tile is decoded whole, however small the picture: writers pad to a few hundred pixels.
_MAX_TILE_PIXELS = 4096 * 4096


def check_directory(image: Image.Image) -> None:
    """Refuse a TIFF whose first picture is not the picture, or whose tiles are a decompression bomb."""
    tags = _tags(image)
    if _holds_raw(image) or tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
        reason = "the first picture of this TIFF is a thumbnail, as in camera RAW. Develop it to JPEG or TIFF."
        raise Refusal("open", reason)
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if width * length > max(_MAX_TILE_PIXELS, image.width * image.height):
        seen = f"tiles of {width} x {length} for a picture of {image.width} x {image.height}"
        raise Refusal("decode", f"{seen}: expected tiles no larger than the picture. Save it again without tiles.")


def allocate(image: Image.Image) -> None:
    """Make room for a TIFF's pixels: where there is room, Pillow does not hold it against its process-wide limit."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.im = Image.new(image.mode, image._tile_size).im


def level_range(image: Image.Image) -> tuple[int, int]:
    """Return the levels of black and white of an integer picture of more than 8 bits: (0, 65535) unless tags differ."""
    tags = _tags(image)
    white = (1 << tags.get(_BITS_PER_SAMPLE, 16)) - 1
    return (white, 0) if is_inverted(image) else (0, white)


def is_inverted(image: Image.Image) -> bool:
    """Say whether 0 is white. Pillow turns pictures of up to 8 bits around and leaves wider ones as they are."""
    return _tags(image).get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO


def _holds_raw(image: Image.Image) -> bool:
    return isinstance(image, TiffImagePlugin.TiffImageFile) and _DNG_VERSION in image.tag_v2


def _tags(image: Image.Image) -> dict[int, int]:
    """Return the tags that hold one number; of several numbers (bits of each channel) the first."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return {}
    firsts = {tag: image.tag_v2[tag] for tag in _READ if tag in image.tag_v2}
    return {tag: int(value[0] if isinstance(value, tuple) else value) for tag, value in firsts.items()}
