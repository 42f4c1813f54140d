"""The colour profile of phones' photographs, Display P3, as an ICC file, for a golden case.

Made here, since no library writes one: a matrix and one curve are all there is to it.
"""

from __future__ import annotations

import struct

# Primaries of Display P3 adapted to the D50 white of ICC profiles, as XYZ (Apple's published profile, columns r, g, b).
_COLUMNS = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
    b"wtpt": (0.96420, 1.00000, 0.82491),
}
# sRGB's curve as ICC's parametric type 3: (a * x + b) ** g above d, c * x below.
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_HEADER_BYTES = 128
_NAME = b"Display P3"


def display_p3_profile() -> bytes:
    """Return a version 4 display profile, the same bytes each time."""
    text = _NAME.decode().encode("utf-16-be")
    words = b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    curve = b"para" + struct.pack(">4xHH", 3, 0) + b"".join(map(_fixed, _CURVE))
    data = {tag: b"XYZ " + bytes(4) + b"".join(map(_fixed, values)) for tag, values in _COLUMNS.items()}
    data |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"desc": words, b"cprt": words}
    start = _HEADER_BYTES + 4 + 12 * len(data)
    table, body = struct.pack(">I", len(data)), b""
    for tag, content in data.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += padded
    return _header(start + len(body)) + table + body


def _header(size: int) -> bytes:
    white = b"".join(map(_fixed, _COLUMNS[b"wtpt"]))
    dated = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4xI4s4s4s", size, 0x04200000, b"mntr", b"RGB ", b"XYZ ") + dated + b"acsp"
    return (head + bytes(28) + white).ljust(_HEADER_BYTES, b"\0")


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))
