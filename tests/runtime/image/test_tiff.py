import numpy as np
import pytest
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import TIFF_LONG, TIFF_SHORT, grey_tiff, noise, saved, tiff

SPEC = ImageSpec()


def test_white_may_be_zero_at_any_depth() -> None:
    levels = np.array([[0, 128, 255]], np.uint8)
    for values, bits in ((levels, 8), (levels.astype(np.uint16) * 257, 16)):
        decoded = decode_image(grey_tiff(values, bits=bits, photometric=0), SPEC)
        assert decoded[0, :, 0].tolist() == [255, 127, 0]


def test_twelve_bits_reach_white() -> None:
    # Two levels in three bytes: black and white, white and black.
    raw = tiff(2, 2, [(258, TIFF_SHORT, 12)], bytes.fromhex("000fff fff000"))
    assert decode_image(raw, SPEC)[:, :, 0].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("tag", [(254, TIFF_LONG, 1), (50706, TIFF_LONG, 1)])
def test_a_thumbnail_is_not_taken_for_the_picture(tag: tuple[int, int, int]) -> None:
    with pytest.raises(ItemError, match="open: the first picture of this TIFF is a thumbnail"):
        decode_image(tiff(8, 8, [tag], bytes(64)), SPEC)


def test_tiles_a_little_larger_than_the_picture_are_usual() -> None:
    raw = saved(Image.fromarray(noise(20, 30)), "TIFF", tiffinfo={322: 32, 323: 32})
    np.testing.assert_array_equal(decode_image(raw, SPEC), noise(20, 30))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"])
def test_compressed_strips_decode(compression: str) -> None:
    raw = saved(Image.fromarray(noise(20, 30)), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_image(raw, SPEC), noise(20, 30))


def test_the_first_page_counts() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    raw = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode_image(raw, SPEC)[0, 0].tolist() == [255, 0, 0]
