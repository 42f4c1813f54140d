import numpy as np
import pytest
from PIL import Image

from mmalign_runtime.image import decode_image
from mmalign_runtime.image.colour import to_rgb
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import saved

SPEC = ImageSpec(background=(9, 8, 7))
INK = (30, 200, 100, 40)
# Ink and black as light, by hand: (1 - ink) (1 - black).
LIGHT = np.array([(255 - ink) * (255 - INK[3]) / 255 for ink in INK[:3]])
# What JPEG at quality 100 and one rounding more may move a level.
JPEG_LEVELS = 3


def inked(file_format: str, **options: object) -> bytes:
    return saved(Image.new("CMYK", (16, 16), INK), file_format, **options)


def as_ycck(ink: tuple[int, ...]) -> bytes:
    """A JPEG whose first three channels are luma and chroma of inverted ink, and marked so (Adobe transform 2).

    A decoder takes 255 - RGB for the ink in the file, which Adobe stores inverted: the RGB is the ink itself.
    """
    luma = Image.new("RGB", (1, 1), ink[:3]).convert("YCbCr").getpixel((0, 0))
    # Pillow writes CMYK inverted, so what is to stand in the file goes in inverted.
    stored = Image.new("CMYK", (16, 16), (*(255 - value for value in luma), ink[3]))
    raw = bytearray(saved(stored, "JPEG", quality=100))
    raw[raw.index(b"Adobe") + 11] = 2
    return bytes(raw)


@pytest.mark.parametrize(
    "raw",
    [inked("JPEG", quality=100), inked("TIFF"), as_ycck(INK)],
    ids=["Adobe CMYK, inverted", "CMYK TIFF", "Adobe YCCK"],
)
def test_ink_becomes_the_light_it_leaves(raw: bytes) -> None:
    assert np.abs(decode_image(raw, SPEC).astype(float) - LIGHT).max() <= JPEG_LEVELS


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("YCbCr", (1, 1), (76, 85, 255)), (254, 0, 0)),
        (Image.new("HSV", (1, 1), (0, 255, 255)), (255, 0, 0)),
        (Image.new("PA", (1, 1), 0), (9, 8, 7)),
        (Image.new("RGBa", (1, 1), (60, 40, 20, 255)), (60, 40, 20)),
        (Image.new("La", (1, 1), (60, 255)), (60, 60, 60)),
        (Image.new("RGBX", (1, 1), (1, 2, 3, 4)), (1, 2, 3)),
        (Image.new("F", (1, 1), 0.5), (128, 128, 128)),
    ],
)
def test_modes_that_only_pillow_makes(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert to_rgb(image, SPEC).getpixel((0, 0)) == expected


def test_one_clear_level_of_sixteen_bits_shows_the_background() -> None:
    levels = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    decoded = decode_image(saved(levels, "PNG", transparency=257), SPEC)
    assert decoded[0].tolist() == [[0, 0, 0], [9, 8, 7], [255, 255, 255]]


def test_one_clear_colour_shows_the_background() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    decoded = decode_image(saved(image, "PNG", transparency=(4, 5, 6)), SPEC)
    assert decoded[0].tolist() == [[1, 2, 3], [9, 8, 7]]


def test_netpbm_of_sixteen_bits_is_scaled() -> None:
    raw = b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes()
    assert decode_image(raw, SPEC)[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize(("mode", "seen"), [("LAB", "mode LAB"), ("I", "from 0 to 0"), ("F", "from 2 to 2")])
def test_pixels_without_an_agreed_meaning_are_refused(mode: str, seen: str) -> None:
    image = Image.new(mode, (2, 2), 2.0) if mode == "F" else Image.new(mode, (2, 2))
    with pytest.raises(Refusal, match=seen):
        to_rgb(image, SPEC)
