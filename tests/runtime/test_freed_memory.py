"""Memory that a large image needed is the system's again, on Linux with glibc, where the runtime can give it back."""

from __future__ import annotations

import io
import platform
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import Embedder
from mmalign_runtime.bench.memory import resident_bytes
from mmalign_runtime.freed_memory import give_back_freed_memory

SIDE = 6000
# Pillow holds 4 bytes a pixel, the array 3, the graph 12: far more than the process may grow by.
MOST_GROWN = 50 * 2**20

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (level, 0, 0)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def damaged(data: bytes) -> bytes:
    """Return a PNG whose last quarter of pixels cannot be decompressed, though every chunk has its checksum."""
    found, position = bytearray(data), 8
    found[len(data) * 3 // 4 : len(data) * 3 // 4 + 2000] = bytes(2000)
    while position < len(found):
        end = position + 8 + struct.unpack_from(">I", data, position)[0]
        struct.pack_into(">I", found, end, zlib.crc32(found[position + 4 : end]))
        position = end + 4
    return bytes(found)


def resident() -> int:
    found = resident_bytes()
    assert found is not None
    return found


@glibc
def test_an_embedder_keeps_nothing_of_a_large_image(embedder: Embedder) -> None:
    embedder.encode_image([np.zeros((64, 64, 3), np.uint8)] * 8)
    files = [png(level) for level in range(3)]
    give_back_freed_memory()
    before = resident()
    embedder.encode_image(files, batch_size=8)
    assert resident() - before < MOST_GROWN
    embedder.encode_image(files, batch_size=1)
    assert resident() - before < MOST_GROWN


@glibc
def test_a_failure_that_is_kept_does_not_keep_its_image(embedder: Embedder) -> None:
    files = [damaged(png(level)) for level in range(2)]
    give_back_freed_memory()
    before = resident()
    found = embedder.encode_image(files, on_error="skip")
    assert [error.stage for error in found.errors] == ["decode", "decode"]
    assert found.errors[0].__cause__ is not None
    assert resident() - before < MOST_GROWN
