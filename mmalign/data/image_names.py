"""What the text in an image cell is: the name of a file, or something that no path is."""

import re

from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES

_SCHEME = re.compile(r"\s*[a-zA-Z][a-zA-Z0-9+.-]+://")
_DATA_URI = re.compile(r"\s*data:[^,]{0,100},")
# The first bytes of pictures in base64.
_BASE64 = re.compile(r"\s*(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9A-Za-z+/]|SUkq|TU0A)[A-Za-z0-9+/=\s]+\Z")
_SHORTEST_BASE64 = 64  # shorter than any picture in base64
# Flickr8k numbers the captions of an image in its name: `1000268201.jpg#0`.
_NUMBERED = re.compile(r"#\d{1,2}\Z")
_DIGITS = re.compile(r"\d+")
_LONGEST_NAME = 4096  # PATH_MAX of Linux
_HEAD_BYTES = 64  # no picture but a plain PPM begins with as many ASCII characters

DOWNLOAD = (
    "Download the images first, for example with img2dataset, and read what it wrote: "
    'format = "webdataset", "parquet" or "folder"'
)

UTF16_UNMARKED = "The file may be damaged, or UTF-16 without a byte-order mark: save it as UTF-8"


def looks_like_image(text: str) -> bool:
    """Say whether a text looks like the name or the address of an image file."""
    return has_image_suffix(text) or is_url(text)


def has_image_suffix(text: str) -> bool:
    """Say whether a text ends as the name of an image file does, as `cat.JPG` and Flickr8k's `cat.jpg#0`."""
    if len(text) > _LONGEST_NAME or "\n" in text or "\r" in text:
        return False
    return _NUMBERED.sub("", text.strip(' "')).lower().endswith(tuple(IMAGE_SUFFIXES))


def has_same_shape(text: str, other: str) -> bool:
    """Say whether two texts differ in the digits alone, as the ids of images without a suffix do."""
    shape = _DIGITS.sub("0", text)
    return "0" in shape and shape == _DIGITS.sub("0", other)


def is_url(text: str) -> bool:
    """Say whether a text begins as an address does."""
    return _SCHEME.match(text) is not None


def why_no_path(text: str) -> str | None:
    """Say why a text in an image cell cannot be a path and what to do, or return None."""
    if len(text) < _SHORTEST_BASE64 and ":" not in text and "\0" not in text:
        return None  # nearly every cell
    if is_url(text):
        return f"it is a URL; expected a path or encoded bytes, since nothing is fetched here. {DOWNLOAD}"
    if _DATA_URI.match(text) or (len(text) >= _SHORTEST_BASE64 and _BASE64.match(text)):
        kind = "a data URI" if _DATA_URI.match(text) else "an image in base64"
        return (
            f"it is {kind}; expected a path or encoded bytes. Decode it with base64.b64decode and write the bytes "
            "to a file, or to a binary column of a Parquet file"
        )
    if "\0" in text:
        return f"it holds NUL characters; expected a path. {UTF16_UNMARKED}"
    return None


def named_in_bytes(content: bytes) -> str | None:
    """Return the text that a binary cell holds in place of a picture (a name, an address, base64), or None."""
    if not content[:_HEAD_BYTES].isascii() and len(content) > _LONGEST_NAME:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    is_text = "\0" not in text and (looks_like_image(text) or why_no_path(text) is not None)
    return text if is_text else None
