import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmalign_export.golden import display_p3_profile
from tests.tolerances import PIXEL_ROUNDING


def to_srgb(color: tuple[int, int, int]) -> tuple[int, ...]:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(display_p3_profile()))
    converted = ImageCms.profileToProfile(Image.new("RGB", (1, 1), color), profile, ImageCms.createProfile("sRGB"))
    return converted.getpixel((0, 0))  # type: ignore[union-attr, return-value]


@pytest.mark.parametrize("level", [0, 77, 128, 255])
def test_greys_are_the_same_in_both(level: int) -> None:
    assert np.abs(np.subtract(to_srgb((level,) * 3), level)).max() <= PIXEL_ROUNDING.bound


def test_colors_are_stronger_than_their_numbers_say_in_srgb() -> None:
    # By hand: linearise, P3 to XYZ to sRGB with the matrices of CSS Color 4, encode again.
    to_xyz = [[0.486571, 0.265668, 0.198217], [0.228975, 0.691739, 0.079287], [0.0, 0.045113, 1.043944]]
    to_rgb = [[3.240970, -1.537383, -0.498611], [-0.969244, 1.875968, 0.041555], [0.055630, -0.203977, 1.056972]]
    encoded = np.array([180, 120, 90]) / 255
    linear = np.array(to_rgb) @ np.array(to_xyz) @ ((encoded + 0.055) / 1.055) ** 2.4
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(to_srgb((180, 120, 90)) - expected).max() <= PIXEL_ROUNDING.bound
