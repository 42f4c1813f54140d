"""Pixels of libjpeg-turbo's own interface, held to Pillow's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image, jpeg_decoder, turbojpeg
from mmalign_runtime.image.arrays import Pixels
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import noise, saved, wide_gamut_profile

needs_simplejpeg = pytest.mark.skipif(find_spec("simplejpeg") is None, reason="simplejpeg is not installed")
SPEC = ImageSpec(size=16)
ORIENTATION = 0x0112


@contextmanager
def without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(turbojpeg, "_decoder", lambda: None)
        yield


def by_pillow(monkeypatch: pytest.MonkeyPatch, raw: bytes, spec: ImageSpec = SPEC) -> Pixels:
    with without_simplejpeg(monkeypatch):
        return decode_image(raw, spec)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each picture was decoded without Pillow."""
    taken: list[bool] = []
    decode = turbojpeg.decode_jpeg

    def watched(raw: bytes, opened: Image.Image) -> Pixels | None:
        pixels = decode(raw, opened)
        taken.append(pixels is not None)
        return pixels

    monkeypatch.setattr("mmalign_runtime.image.decode.decode_jpeg", watched)
    return taken


@needs_simplejpeg
@pytest.mark.parametrize("side", [8, 9, 33, 67, 131, 257])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2", "quality": 30},
        {"progressive": True, "quality": 98},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
    ],
)
def test_pixels_are_pillows_at_every_scale(
    side: int, mode: str, options: dict[str, object], taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every size modulo a block, noise and smooth areas, in full and at 1/2, 1/4 and 1/8.
    pixels = noise(side, side + side // 3)
    pixels[: side // 2] = 200
    raw = saved(Image.fromarray(pixels).convert(mode), "JPEG", **options)
    for size in (4, 8, 16, 1000):
        spec = ImageSpec(size=size)
        np.testing.assert_array_equal(decode_image(raw, spec), by_pillow(monkeypatch, raw, spec))
    assert taken[0]


@needs_simplejpeg
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_set_upright(orientation: int, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    raw = saved(Image.fromarray(noise(40, 30)), "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_image(raw, SPEC), by_pillow(monkeypatch, raw))
    assert taken == [True, False]


@needs_simplejpeg
def test_a_profile_and_other_colours_are_left_to_pillow(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(noise(40, 30))
    converting = ImageSpec(size=16, icc_profile="to_srgb")
    for raw, spec, is_taken in (
        (saved(picture, "JPEG", icc_profile=wide_gamut_profile()), converting, None),
        (saved(picture, "JPEG"), converting, True),
        (saved(picture, "JPEG", icc_profile=wide_gamut_profile()), SPEC, True),
        (saved(picture.convert("CMYK"), "JPEG"), SPEC, False),
    ):
        taken.clear()
        np.testing.assert_array_equal(decode_image(raw, spec), by_pillow(monkeypatch, raw, spec))
        assert taken[:1] == ([] if is_taken is None else [is_taken])


@needs_simplejpeg
def test_pillow_decides_what_is_damaged(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = saved(Image.fromarray(noise(160, 128)), "JPEG")
    harmless = raw[:-2] + bytes(40) + raw[-2:]  # libjpeg warns of bytes that belong to nothing
    np.testing.assert_array_equal(decode_image(harmless, SPEC), by_pillow(monkeypatch, harmless))
    for end in (b"", b"\xff\xd9"):
        with pytest.raises(ItemError, match=r"decode: .*truncated"):
            decode_image(raw[: int(len(raw) * 0.9)] + end, SPEC)
    assert not any(taken)


def _damaged(raw: bytes, random: np.random.Generator) -> bytes:
    """Return a JPEG cut, ended early, with a bit turned, a marker put in or bytes taken out of its scan."""
    at = int(random.integers(raw.index(b"\xff\xda") + 12, len(raw)))
    turned = raw[:at] + bytes([raw[at] ^ 1 << int(random.integers(8))]) + raw[at + 1 :]
    marked = raw[:at] + bytes([0xFF, int(random.integers(1, 256))]) + raw[at:]
    shorter = raw[:at] + raw[at + int(random.integers(1, 40)) :]
    kinds = (raw[:at], raw[:at] + b"\xff\xd9", turned, marked, shorter)
    return kinds[int(random.integers(len(kinds)))]


@needs_simplejpeg
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_damage_is_judged_as_without_the_package(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    raw = saved(Image.fromarray(noise(30, 40)).resize((160, 120)), "JPEG", **options)
    num_refused = 0
    for _ in range(200):
        damaged = _damaged(raw, random)
        try:
            expected = by_pillow(monkeypatch, damaged)
        except ItemError:
            num_refused += 1
            with pytest.raises(ItemError, match="decode"):
                decode_image(damaged, SPEC)
        else:
            np.testing.assert_array_equal(decode_image(damaged, SPEC), expected)
    assert 20 < num_refused < 200  # both happen


def test_without_the_package_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = saved(Image.fromarray(noise(40, 30)), "JPEG")
    expected = decode_image(raw, SPEC)
    with without_simplejpeg(monkeypatch):
        assert jpeg_decoder().startswith("Pillow ")
        np.testing.assert_array_equal(decode_image(raw, SPEC), expected)
    if find_spec("simplejpeg") is not None:
        assert jpeg_decoder().startswith("simplejpeg ")
