from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.bundle.golden import load_golden, pixels_sha256, sample_pixel_values, sample_pixels
from mmalign_runtime.errors import BundleFormatError


def test_samples_reach_the_corners_and_fit_images_smaller_than_the_grid() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert sample_pixels(pixels).tolist() == pixels.ravel().tolist()
    values = np.zeros((1, 3, 64, 64), np.float32)
    values[0, :, 0, 0], values[0, :, 63, 63] = 1, 2
    assert {0.0, 1.0, 2.0} == set(sample_pixel_values(values).tolist())


def test_the_hash_is_of_values_not_of_memory_layout() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert pixels_sha256(pixels) == pixels_sha256(np.asfortranarray(pixels))
    assert pixels_sha256(pixels) != pixels_sha256(pixels[::-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "images"), ("no json", "cases.json"), ('{"images": [], "texts": []}', "nothing could be proven")],
)
def test_broken_cases_are_refused(tiny_bundle: Path, content: str, message: str) -> None:
    (tiny_bundle / "golden/cases.json").write_text(content)
    bundle: Bundle = open_bundle(tiny_bundle, check_hashes=False)
    with pytest.raises(BundleFormatError, match=message):
        load_golden(bundle)


def test_samples_of_another_grid_are_refused(tiny_bundle: Path) -> None:
    path = tiny_bundle / "golden/cases.json"
    golden = load_golden(open_bundle(tiny_bundle))
    first = msgspec.structs.replace(golden.images[0], pixels_sample=golden.images[0].pixels_sample[1:])
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(golden, images=(first, *golden.images[1:]))))
    with pytest.raises(BundleFormatError, match="keeps other samples than this version"):
        load_golden(open_bundle(tiny_bundle, check_hashes=False))
