"""The scan of a JPEG, walked marker by marker: damage that libjpeg paints over in grey is found, and named, here.

libjpeg warns and goes on where a scan ends early, and Pillow keeps its warnings quiet. Two things are done about it.
A marker that no scan may hold, or restart markers out of their order, are damage. And a picture of one scan is handed
on without its end marker: a scan that is short then asks for more bytes, which Pillow reports as truncated.
What stays unseen: bytes inside a scan that still decode, to the right number of blocks, and all but the first scan of a
progressive picture that ends early with an end marker.
"""

from __future__ import annotations

import re

from mmalign_runtime.image.refusal import Refusal

# ITU-T T.81, table B.1.
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_BASELINE, _EXTENDED = 0xC0, 0xC1
_NUM_RESTARTS = 8
_FIRST_RESTART = 0xD0
# What may follow a scan: tables (DHT, DQT, DAC, DRI, DNL), another scan, the end, application data, a comment.
_AFTER_SCAN = frozenset({0xC4, 0xCC, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})

_ANY_MARKER = re.compile(rb"\xff+[^\x00\xff]")
# Inside a scan 0xFF 0x00 is a byte of data and D0 to D7 restart the decoder.
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# The decoder reads ahead of the last block: zeros give it what to read. They decode to at most a few blocks.
_READ_AHEAD = bytes(16)
_REPLACE = "Parts of it would decode to grey: replace it."


def unsealed_jpeg(raw: bytes) -> bytes:
    """Return a JPEG's bytes such that a short scan cannot pass as a whole one. Raises Refusal where it is damaged."""
    position, num_scans, frame = len(_SOI), 0, 0
    while (found := _ANY_MARKER.search(raw, position)) is not None:
        marker, position = raw[found.end() - 1], found.end()
        if marker == _EOI:
            is_one_scan = num_scans == 1 and frame in (_BASELINE, _EXTENDED)
            return raw[: found.start()] + _READ_AHEAD if is_one_scan else raw
        if num_scans and marker not in _AFTER_SCAN:
            raise Refusal("decode", f"the JPEG is damaged: marker FF {marker:02X} at byte {found.start()}. {_REPLACE}")
        if marker in (_BASELINE, _EXTENDED):
            frame = marker
        position += int.from_bytes(raw[position : position + 2], "big")
        if marker == _SOS:
            num_scans += 1
            position = _end_of_scan(raw, position)
    return raw  # no end marker: cut off, as Pillow will say


def _end_of_scan(raw: bytes, start: int) -> int:
    end = _SCAN_END.search(raw, start)
    stop = end.start() if end else len(raw)
    for number, restart in enumerate(_RESTART.finditer(raw, start, stop)):
        if raw[restart.start() + 1] != _FIRST_RESTART + number % _NUM_RESTARTS:
            where = f"restart marker {number} at byte {restart.start()} is out of order"
            raise Refusal("decode", f"the JPEG is damaged: {where}. {_REPLACE}")
    return stop
