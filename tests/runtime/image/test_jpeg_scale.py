import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageLimits, ImageSpec
from tests.runtime.pictures import noise, saved, wide_gamut_profile

SIZE = 8
SQUASH = ImageSpec(size=SIZE)  # twice 8: sides of at least 16
SMOOTH = Image.fromarray(np.add.outer(np.arange(131), np.arange(97)).astype(np.uint8)).convert("RGB")
ORIENTATION = 0x0112


def decoded_size(size: tuple[int, int], spec: ImageSpec = SQUASH) -> tuple[int, int]:
    height, width, _ = decode_image(saved(Image.new("RGB", size), "JPEG"), spec).shape
    return width, height


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_scale_changes_exactly_where_the_shorter_side_still_suffices(scale: int) -> None:
    exact = scale * 2 * SIZE
    for longer in (exact, exact + 1, 3 * exact):
        reduced = (-(-longer // scale), exact // scale)
        assert decoded_size((longer, exact)) == reduced
        assert decoded_size((exact, longer)) == reduced[::-1]
        finer = scale // 2
        one_less = (-(-longer // finer), -(-(exact - 1) // finer))
        assert decoded_size((longer, exact - 1)) == one_less
        assert decoded_size((exact - 1, longer)) == one_less[::-1]


def test_small_and_thin_jpegs_are_decoded_in_full() -> None:
    assert decoded_size((15, 200)) == (15, 200)
    assert decoded_size((3, 2)) == (3, 2)


def test_nothing_is_read_below_an_eighth() -> None:
    assert decoded_size((1000, 800)) == (125, 100)


def test_the_spec_decides_how_much_is_kept() -> None:
    size = (128, 128)
    assert [decoded_size(size, ImageSpec(size=SIZE, jpeg_oversampling=k)) for k in (0, 1, 3, 5, 17)] == [
        (128, 128),
        (16, 16),
        (32, 32),
        (64, 64),
        (128, 128),
    ]
    by_edge = ImageSpec(size=SIZE, resize="shortest_edge", shortest_edge=16)
    assert decoded_size((128, 300), by_edge) == (32, 75)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_wanted_of_the_upright_picture_takes_the_place_of_the_spec_s(orientation: int) -> None:
    exif, asked = Image.Exif(), []
    exif[ORIENTATION] = orientation
    raw = saved(Image.new("RGB", (256, 64)), "JPEG", exif=exif)
    upright = (64, 256) if orientation < 5 else (256, 64)

    def wanted(stored: tuple[int, int]) -> tuple[int, int]:
        asked.append(stored)
        return (16, 128) if orientation < 5 else (128, 16)

    assert decode_image(raw, SQUASH, wanted=wanted).shape == (upright[0] // 2, upright[1] // 2, 3)
    assert asked == [upright]
    assert decode_image(raw, SQUASH, wanted=lambda stored: (0, 0)).shape == (*upright, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_is_close_to_the_whole_one_made_smaller(options: dict[str, object], mode: str) -> None:
    raw = saved(SMOOTH.convert(mode), "JPEG", quality=95, **options)
    reduced = decode_image(raw, SQUASH)
    whole = Image.fromarray(decode_image(raw, ImageSpec(size=SIZE, jpeg_oversampling=0)))
    smaller = np.asarray(whole.resize((reduced.shape[1], reduced.shape[0]), Image.Resampling.BOX))
    assert reduced.shape == (33, 25, 3)
    # All but the last row and column, which stand for blocks that the picture fills in part.
    assert np.abs(reduced[:-1, :-1].astype(int) - smaller[:-1, :-1]).mean() < 4


def test_every_way_to_pass_a_file_gives_the_same_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    second = Image.new("RGB", SMOOTH.size, "red")
    for file_format, options in (("JPEG", {}), ("MPO", {"save_all": True, "append_images": [second]})):
        raw = saved(SMOOTH, file_format, exif=exif, **options)
        path = tmp_path / "photo.jpg"
        path.write_bytes(raw)
        expected = decode_image(raw, SQUASH)
        assert expected.shape == (25, 33, 3)
        with path.open("rb") as file, Image.open(path) as lazy, Image.open(io.BytesIO(raw)) as in_memory:
            for item in (path, str(path), file, lazy, in_memory):
                np.testing.assert_array_equal(decode_image(item, SQUASH), expected)


def test_a_callers_picture_is_left_as_it_was() -> None:
    raw = saved(SMOOTH, "JPEG")
    with Image.open(io.BytesIO(raw)) as lazy:
        decode_image(lazy, SQUASH)
        assert lazy.size == SMOOTH.size
        with Image.open(io.BytesIO(raw)) as other:
            np.testing.assert_array_equal(np.asarray(lazy), np.asarray(other))


def test_a_loaded_picture_and_a_scale_of_the_callers_are_taken_as_they_are() -> None:
    raw = saved(SMOOTH, "JPEG")
    with Image.open(io.BytesIO(raw)) as loaded, Image.open(io.BytesIO(raw)) as drafted:
        loaded.load()
        assert decode_image(loaded, SQUASH).shape == (131, 97, 3)
        drafted.draft("RGB", (48, 48))
        assert decode_image(drafted, SQUASH).shape == (66, 49, 3)


def test_a_later_picture_of_an_mpo_is_taken_as_it_is() -> None:
    raw = saved(SMOOTH, "MPO", save_all=True, append_images=[Image.new("RGB", (90, 80), "red")])
    with Image.open(io.BytesIO(raw)) as album:
        album.seek(1)
        assert decode_image(album, SQUASH).shape == (80, 90, 3)


def test_limits_are_of_the_stored_size() -> None:
    raw = saved(Image.new("RGB", (160, 160)), "JPEG")
    with Image.open(io.BytesIO(raw)) as lazy:
        for item in (raw, lazy):
            with pytest.raises(ItemError, match="160 x 160 is more than the 1000 pixels"):
                decode_image(item, ImageSpec(size=SIZE, limits=ImageLimits(max_pixels=1000)))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_cut_scan_is_found_at_every_scale(scale: int) -> None:
    raw = saved(Image.fromarray(noise(160, 128)), "JPEG")
    for end in (b"", b"\xff\xd9"):
        spec = ImageSpec(size=128 // scale, jpeg_oversampling=1)
        assert decode_image(raw, spec).shape == (160 // scale, 128 // scale, 3)
        with pytest.raises(ItemError, match=r"decode: .*truncated"):
            decode_image(raw[: int(len(raw) * 0.9)] + end, spec)


def test_a_colour_profile_is_applied_to_the_reduced_picture() -> None:
    raw = saved(Image.new("RGB", (128, 128), (250, 20, 20)), "JPEG", quality=95, icc_profile=wide_gamut_profile())
    whole, reduced = (
        decode_image(raw, ImageSpec(size=SIZE, icc_profile="to_srgb", jpeg_oversampling=k)) for k in (0, 2)
    )
    assert reduced.shape == (16, 16, 3)
    np.testing.assert_array_equal(whole[:16, :16], reduced)
    assert not np.array_equal(reduced, decode_image(raw, SQUASH))
