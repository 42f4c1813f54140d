"""Small files that promise large pictures: python -m benchmarks.reliability bombs

Each is refused (or, where the promise is harmless, decoded) in time and memory that its header cannot command.
"""

from __future__ import annotations

import tracemalloc
import zlib
from time import perf_counter

import msgspec
from PIL import Image

from benchmarks.reliability.record import Row, record
from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec
from tests.runtime import pictures

NUM_ROUNDS = 5
MAX_MS = 50.0
MAX_PEAK_MB = 8.0
_SIDE = 60_000
_TEXT_BYTES = 200_000_000


class Bomb(msgspec.Struct, frozen=True):
    """One file: its size, the fastest decoding (the machine is shared), the peak of traced memory, and the answer."""

    name: str
    size_bytes: int
    best_ms: float
    peak_mb: float
    answer: str


def bombs() -> dict[str, bytes]:
    """Return the files by name."""
    text = zlib.compress(bytes(_TEXT_BYTES), 9)
    return {
        "PNG": pictures.png(_SIDE, _SIDE),
        "PNG, 1 bit, complete": pictures.saved(Image.new("1", (30_000, 30_000)), "PNG"),
        "PNG, zTXt of 200 MB": pictures.png(8, 8, pictures.chunk(b"zTXt", b"a\0\0" + text)),
        "PNG, iCCP of 200 MB": pictures.png(8, 8, pictures.chunk(b"iCCP", b"a\0\0" + text)),
        "WebP": pictures.webp(2**24, 2**8),
        "GIF": pictures.gif(_SIDE, _SIDE),
        "BMP": pictures.bmp(_SIDE, _SIDE),
        "JPEG": pictures.jpeg_of_size(_SIDE, _SIDE),
        "TIFF": pictures.tiff(_SIDE, _SIDE),
        "TIFF, tag of 4 GB": pictures.tiff(8, 8, [(700, 1, 0xFFFFFFF0)]),
        "PPM": b"P6 60000 60000 255\n",
        "QOI": b"qoif\x00\x00\xea\x60\x00\x00\xea\x60\x03\x00",
    }


def measure(name: str, data: bytes, spec: ImageSpec) -> Bomb:
    """Decode one file, several times for the clock and once for the memory."""
    times_ms = []
    for _ in range(NUM_ROUNDS):
        start = perf_counter()
        answer = _answer(data, spec)
        times_ms.append((perf_counter() - start) * 1000)
    tracemalloc.start()
    _answer(data, spec)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Bomb(name, len(data), round(min(times_ms), 2), round(peak_bytes / 1e6, 2), answer)


def _answer(data: bytes, spec: ImageSpec) -> str:
    try:
        return f"decoded {decode_image(data, spec).shape}"
    except ItemError as error:
        return f"{error.stage}: {error.reason}"


def run() -> None:
    """Measure and record."""
    spec = ImageSpec()
    for warm in (pictures.png(1, 1), pictures.gif(1, 1)):  # Pillow's plugins are imported at first need
        _answer(warm, spec)
    found = tuple(measure(name, data, spec) for name, data in bombs().items())
    good = sum(bomb.best_ms < MAX_MS and bomb.peak_mb < MAX_PEAK_MB for bomb in found)
    slowest, largest = max(bomb.best_ms for bomb in found), max(bomb.peak_mb for bomb in found)
    measured = f"slowest {slowest:.1f} ms, at most {largest:.1f} MB"
    record("bombs", [Row("decompression bombs", len(found), good, measured)], {"bombs": found})
