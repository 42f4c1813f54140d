import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.image.jpeg import unseal
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import noise, saved

SMOOTH = Image.fromarray(np.add.outer(np.arange(120), np.arange(100)).astype(np.uint8))
# A cut scan is filled up with at most this share of grey before its end is noticed: zeros decode to a few blocks.
NOTICED = 0.9


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"quality": 100}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpegs_decode_as_pillow_decodes_them(options: dict[str, object], mode: str) -> None:
    for image in (Image.fromarray(noise(70, 51)).convert(mode), SMOOTH.convert(mode)):
        raw = saved(image, "JPEG", **options)
        with Image.open(io.BytesIO(raw)) as expected:
            np.testing.assert_array_equal(decode_image(raw, ImageSpec()), np.asarray(expected.convert("RGB")))


def test_bytes_behind_the_end_and_a_second_picture_do_not_count() -> None:
    raw = saved(SMOOTH, "JPEG")
    two = saved(SMOOTH, "MPO", save_all=True, append_images=[Image.new("L", SMOOTH.size)])
    for item in (raw + b"\xff\xd8 more", two):
        np.testing.assert_array_equal(decode_image(item, ImageSpec()), decode_image(raw, ImageSpec()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kept=st.floats(0.2, NOTICED), is_smooth=st.booleans(), with_end=st.booleans(), restarts=st.sampled_from([0, 5]))
def test_no_cut_jpeg_of_one_scan_passes_for_a_whole_one(
    kept: float, is_smooth: bool, with_end: bool, restarts: int
) -> None:
    image = SMOOTH if is_smooth else Image.fromarray(noise(120, 100))
    raw = saved(image, "JPEG", quality=90, restart_marker_blocks=restarts)
    start = raw.index(b"\xff\xda")
    part = raw[: start + int((len(raw) - start) * kept)] + (b"\xff\xd9" if with_end else b"")
    with pytest.raises(ItemError, match=r"decode: .*(truncated|damaged)"):
        decode_image(part, ImageSpec())


def test_damage_is_named_with_its_place() -> None:
    raw = saved(SMOOTH, "JPEG", restart_marker_blocks=2)
    with pytest.raises(Refusal, match=r"restart marker 2 at byte \d+ is out of order"):
        unseal(io.BytesIO(raw.replace(b"\xff\xd2", b"\xff\xd6", 1)))
    with pytest.raises(Refusal, match=r"marker FF 01 at byte \d+"):
        unseal(io.BytesIO(raw[:-2] + b"\xff\x01" + raw[-2:]))
