"""Pictures that the pixels of an import are compared on, beside the golden ones: sides in many ratios.

How a library rounds the longer side and the offset of a crop shows in some ratios only, by a pixel.
"""

from __future__ import annotations

import io

from PIL import Image

from mmalign_export.golden import GoldenFile, golden_photo

_SHORT, _STEP, _NUM_RATIOS = 150, 7, 8


def proof_pictures() -> tuple[GoldenFile, ...]:
    """Return pictures, upright and lying, whose longer sides fall on every remainder of four for any usual size."""
    photo = golden_photo()
    found = []
    for number in range(1, _NUM_RATIOS + 1):
        long = _SHORT + _STEP * number
        for sides in ((_SHORT, long), (long, _SHORT)):
            buffer = io.BytesIO()
            photo.resize(sides, Image.Resampling.BILINEAR).save(buffer, "PNG")
            found.append(GoldenFile(f"{sides[0]} x {sides[1]}", ".png", buffer.getvalue()))
    return tuple(found)
