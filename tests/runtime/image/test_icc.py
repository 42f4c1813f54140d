import numpy as np
import pytest
from PIL import Image, ImageCms

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import noise, saved, wide_gamut_profile

SPEC = ImageSpec(icc_profile="to_srgb", background=(10, 200, 30))
WIDE = wide_gamut_profile()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [128, 128, 128], [255, 255, 255], [0, 0, 0], [180, 120, 100]]], np.uint8)
# The two spaces' primaries in XYZ, adapted to D50: of the profile as it is made, of sRGB as IEC 61966-2-1 has it.
WIDE_TO_XYZ = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def by_hand(wide: np.ndarray) -> np.ndarray:
    light = (wide / 255) ** 2.2 @ WIDE_TO_XYZ.T @ np.linalg.inv(SRGB_TO_XYZ).T
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_wide_gamut_colours_become_srgb_as_the_formulas_say(file_format: str) -> None:
    raw = saved(Image.fromarray(COLOURS), file_format, icc_profile=WIDE)
    assert np.abs(decode_image(raw, SPEC) - by_hand(COLOURS)).max() <= 1
    np.testing.assert_array_equal(decode_image(raw, ImageSpec()), COLOURS)


def test_an_srgb_profile_leaves_the_pixels_alone() -> None:
    raw = saved(Image.fromarray(noise(20, 30)), "PNG", icc_profile=SRGB)
    np.testing.assert_array_equal(decode_image(raw, SPEC), noise(20, 30))


def test_colours_are_converted_before_they_meet_the_background() -> None:
    image = Image.fromarray(COLOURS)
    image.putalpha(Image.fromarray(np.array([[255, 255, 255, 255, 0, 255]], np.uint8)))
    decoded = decode_image(saved(image, "PNG", icc_profile=WIDE), SPEC)
    assert np.abs(decoded[0, :4] - by_hand(COLOURS)[0, :4]).max() <= 1
    assert decoded[0, 4].tolist() == [10, 200, 30]


def test_grey_and_palette_pictures_may_carry_a_profile_of_colours() -> None:
    grey = decode_image(saved(Image.new("L", (2, 2), 128), "PNG", icc_profile=WIDE), SPEC)
    assert np.abs(grey - by_hand(np.full((2, 2, 3), 128))).max() <= 1
    palette = Image.new("P", (1, 1))
    palette.putpalette([180, 120, 100])
    decoded = decode_image(saved(palette, "PNG", icc_profile=WIDE), SPEC)
    assert np.abs(decoded - by_hand(COLOURS[:, 5:])).max() <= 1


@pytest.mark.parametrize(
    ("image", "profile", "reason"),
    [
        (Image.new("RGB", (2, 2)), b"nonsense", "its ICC profile cannot be read"),
        (Image.new("CMYK", (2, 2)), WIDE, "its ICC profile is for RGB, its pixels are CMYK"),
        (Image.new("RGB", (2, 2)), WIDE[:200], "its ICC profile cannot be"),
    ],
)
def test_a_profile_that_cannot_be_followed_is_an_error_where_srgb_is_asked_for(
    image: Image.Image, profile: bytes, reason: str
) -> None:
    raw = saved(image, "TIFF", icc_profile=profile)
    with pytest.raises(ItemError, match=f"decode: {reason}.*Strip the profile"):
        decode_image(raw, SPEC)
    assert decode_image(raw, ImageSpec()).shape == (2, 2, 3)
