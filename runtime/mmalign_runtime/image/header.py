"""The size that a header promises, read before Pillow is asked where asking costs something.

For a WebP Pillow allocates the canvas, twice, before it can be asked for its size; for a PNG it inflates every
compressed text in front of the pixels, up to 64 MiB of them.
"""

from __future__ import annotations

import struct

from mmalign_runtime.image.formats import ImageFormat

_SIZE_BITS = 0x3FFF


def promised_size(image_format: ImageFormat, head: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a PNG or WebP from its first 30 bytes, or None where they do not say it."""
    if image_format == "PNG" and head[12:16] == b"IHDR" and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    return _webp_size(head[12:16], head[20:30]) if image_format == "WEBP" and len(head) >= 30 else None


def _webp_size(kind: bytes, data: bytes) -> tuple[int, int] | None:
    """Read the first chunk of a WebP (RFC 9649, sections 2.5 to 2.7)."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & _SIZE_BITS), 1 + (bits >> 14 & _SIZE_BITS)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & _SIZE_BITS for at in (6, 8))
        return width, height
    return None
