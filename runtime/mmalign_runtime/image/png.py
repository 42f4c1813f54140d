"""The chunks of a PNG, checked: Pillow does not compare the checksums of pixel data, so a flipped bit would pass."""

from __future__ import annotations

import struct
import zlib

from mmalign_runtime.image.refusal import Refusal

_SIGNATURE_BYTES = 8
_AROUND_DATA = 12  # length and name before a chunk's data, checksum after


def check_chunks(raw: bytes) -> None:
    """Refuse a PNG with a wrong checksum, or one that ends before its IEND chunk (PNG specification, section 5)."""
    view, position = memoryview(raw), _SIGNATURE_BYTES
    while position + _AROUND_DATA <= len(raw):
        length, name = struct.unpack_from(">I4s", raw, position)
        end = position + _AROUND_DATA + length
        if end > len(raw):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", raw, end - 4)[0]:
            chunk = name.decode("latin-1")
            reason = (
                f"the PNG is damaged: the checksum of its chunk {chunk!r} at byte {position} does not fit: replace it."
            )
            raise Refusal("decode", reason)
        if name == b"IEND":
            return
        position = end
    raise Refusal("decode", f"the PNG is truncated: it ends at byte {len(raw)}, before its IEND chunk: replace it.")
