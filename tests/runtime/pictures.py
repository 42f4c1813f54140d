"""Bytes of pictures that no library writes for us: headers that promise too much, rare TIFFs, broken chunks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

TIFF_SHORT, TIFF_LONG = 3, 4


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *extra: bytes, pixels: bytes = b"") -> bytes:
    """A PNG that promises this many pixels, holding none of them unless told."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def webp(width: int, height: int) -> bytes:
    """An extended WebP header with a canvas of this size, and nothing on it."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02L\x01\x00;"


def bmp(width: int, height: int) -> bytes:
    information = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + information


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small JPEG whose header promises another size."""
    raw = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    sides = raw.index(b"\xff\xc0") + 5
    raw[sides : sides + 4] = struct.pack(">HH", height, width)
    return bytes(raw)


def tiff(width: int, height: int, tags: Sequence[tuple[int, int, int]] = (), data: bytes = b"") -> bytes:
    """A little-endian grey TIFF of one strip; `tags` are (tag, type, value) beside or in place of the usual ones."""
    entries = {
        256: (TIFF_LONG, width),
        257: (TIFF_LONG, height),
        258: (TIFF_SHORT, 8),
        259: (TIFF_SHORT, 1),
        262: (TIFF_SHORT, 1),
        273: (TIFF_LONG, 8),
        277: (TIFF_SHORT, 1),
        278: (TIFF_LONG, height),
        279: (TIFF_LONG, len(data)),
    }
    entries |= {tag: (kind, value) for tag, kind, value in tags}
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    directory = struct.pack("<H", len(entries)) + packed + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def grey_tiff(values: np.ndarray, *, bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """A TIFF of these values (H, W). `sample_format` is 1 unsigned, 2 signed, 3 float; `photometric` 0 is white."""
    tags = [(258, TIFF_SHORT, bits), (339, TIFF_SHORT, sample_format), (262, TIFF_SHORT, photometric)]
    return tiff(values.shape[1], values.shape[0], tags, values.tobytes())


def cut(raw: bytes, share: float) -> bytes:
    return raw[: int(len(raw) * share)]


def wide_gamut_profile() -> bytes:
    """An ICC v2 profile of Display P3's primaries with a plain gamma of 2.2 (matrix and curves, D50 adapted)."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(x) + fixed(y) + fixed(z)

    text = b"wide"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 8 + 3 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"cprt": b"text\0\0\0\0none" + bytes(4),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.15710, 0.06657, 0.78407),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    position, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", position + len(body), len(data))
        body += data
    size = position + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body
