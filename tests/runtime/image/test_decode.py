import io
import tracemalloc
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageLimits, ImageSpec
from tests.runtime.pictures import bmp, gif, grey_tiff, jpeg_of_size, noise, png, saved, tiff, webp

SPEC = ImageSpec(background=(10, 200, 30))
ORIENTATION = 0x0112

# Every EXIF orientation as numpy sees it: what undoes the camera's turn (TIFF 6.0, tag 274).
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, file_format: str) -> None:
    stored = noise(4, 6)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    raw = saved(Image.fromarray(stored), file_format, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(raw, SPEC), UPRIGHT[orientation](stored))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_spec_may_ignore_the_orientation(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = Image.fromarray(noise(4, 6))
    ignoring = ImageSpec(orientation="ignored", jpeg_oversampling=0)
    turned, plain = (saved(picture, file_format, **options) for options in ({"exif": exif}, {}))
    np.testing.assert_array_equal(decode_image(turned, ignoring), decode_image(plain, SPEC))


def test_exif_orientation_of_a_jpeg_is_undone() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    raw = saved(Image.new("RGB", (30, 20), "red"), "JPEG", exif=exif)
    assert decode_image(raw, SPEC).shape == (30, 20, 3)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_pixels_are_taken_as_they_are(file_format: str) -> None:
    pixels = noise(5, 7)
    decoded = decode_image(saved(Image.fromarray(pixels), file_format), SPEC)
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


def test_grey_is_repeated_in_each_channel() -> None:
    grey = noise(5, 7, 1)
    decoded = decode_image(saved(Image.fromarray(grey[:, :, 0]), "PNG"), SPEC)
    np.testing.assert_array_equal(decoded, np.repeat(grey, 3, axis=2))


def test_one_bit_becomes_black_and_white() -> None:
    bits = noise(5, 7, 1)[:, :, 0] > 127
    decoded = decode_image(saved(Image.fromarray(bits), "PNG"), SPEC)
    np.testing.assert_array_equal(decoded[:, :, 0], bits * np.uint8(255))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    decoded = decode_image(saved(Image.fromarray(levels), "PNG"), SPEC)
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_ink_becomes_light() -> None:
    red_ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode_image(saved(red_ink, "JPEG", quality=95), SPEC)
    assert np.abs(decoded.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_the_background_of_the_spec(mode: str) -> None:
    colour = (80, 80, 80) if mode == "RGBA" else (80,)
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (*colour, alpha))
    decoded = decode_image(saved(image, "PNG"), SPEC)
    background = np.array(SPEC.background)
    expected = [background, 0.2 * 80 + 0.8 * background, (80, 80, 80)]
    assert np.abs(decoded[0] - np.array(expected)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_a_spec_may_drop_alpha(mode: str) -> None:
    colour = Image.fromarray(noise(3, 5)).quantize(4) if mode == "PA" else Image.fromarray(noise(3, 5))
    picture = colour.convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[mode])
    expected = np.asarray(picture.convert("RGB"))
    with_alpha = picture.convert(mode)
    with_alpha.putalpha(77)
    dropping = ImageSpec(alpha="dropped", background=(10, 200, 30))
    np.testing.assert_array_equal(decode_image(with_alpha, dropping), expected)
    assert not np.array_equal(decode_image(with_alpha, SPEC), expected)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_transparent_palette_entry_shows_the_background(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putpixel((1, 0), 1)
    decoded = decode_image(saved(image, "PNG", transparency=transparency), SPEC)
    assert decoded[0].tolist() == [[250, 0, 0], list(SPEC.background)]


def test_a_plain_palette_is_looked_up() -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([1, 2, 3])
    assert decode_image(saved(image, "PNG"), SPEC).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_counts(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    raw = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert decode_image(raw, SPEC)[0, 0].tolist() == [255, 0, 0]


def test_a_progressive_jpeg_decodes_as_a_plain_one() -> None:
    image = Image.fromarray(noise(40, 50))
    plain, progressive = (decode_image(saved(image, "JPEG", progressive=flag), SPEC) for flag in (False, True))
    np.testing.assert_array_equal(plain, progressive)


def test_path_bytes_file_and_pil_image_give_the_same_pixels(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    with path.open("rb") as file, Image.open(path) as image:
        items = [path, str(path), path.read_bytes(), file, image, pixels]
        for item in items:
            np.testing.assert_array_equal(decode_image(item, SPEC), pixels)
        assert not file.closed


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_an_array_that_is_no_rgb_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ItemError, match=r"expected \(H, W, 3\) uint8 RGB"):
        decode_image(array, SPEC)


def test_a_truncated_jpeg_is_a_decode_error(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    raw = saved(Image.fromarray(noise(64, 64)), "JPEG")
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ItemError, match=r"item 3 \(.*half\.jpg\), decode: the file cannot be decoded") as caught:
        decode_image(path, SPEC, index=3)
    assert (caught.value.index, caught.value.stage) == (3, "decode")


@pytest.mark.parametrize(
    ("contents", "reason"), [(b"", "the file is empty"), (b"this is a text", "the bytes are not an image")]
)
def test_a_file_that_is_no_image_is_an_open_error(tmp_path: Path, contents: bytes, reason: str) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(contents)
    for item in (path, contents):
        with pytest.raises(ItemError, match=f"open: {reason}"):
            decode_image(item, SPEC)


def test_a_path_without_a_readable_file_is_an_open_error(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="open: there is no such file"):
        decode_image(tmp_path / "missing.png", SPEC)
    with pytest.raises(ItemError, match="open: Is a directory"):
        decode_image(tmp_path, SPEC)


def test_what_is_no_item_at_all_is_refused() -> None:
    with pytest.raises(ItemError, match="a NoneType is not an image: pass a path"):
        decode_image(None, SPEC)  # type: ignore[arg-type]


# Tiny files that promise 3.6 thousand million pixels.
BOMBS = {make.__name__: make(60_000, 60_000) for make in (png, webp, gif, bmp, tiff, jpeg_of_size)}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("process_limit", [None, 1, 10**12])
def test_a_bomb_is_refused_by_the_spec_whatever_pillow_allows(
    kind: str, process_limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", process_limit)
    tracemalloc.start()
    try:
        with pytest.raises(ItemError, match="decode: 60000 x 60000 is more than the 100000000 pixels"):
            decode_image(BOMBS[kind], SPEC)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_is_the_spec_s_also_where_pillow_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    for file_format in ("PNG", "JPEG", "GIF", "TIFF", "BMP"):
        assert decode_image(saved(Image.fromarray(noise(5, 7)), file_format), SPEC).shape == (5, 7, 3)
    assert Image.MAX_IMAGE_PIXELS == 1


def test_limits_may_be_replaced(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    strict = msgspec.structs.replace(SPEC, limits=ImageLimits(max_pixels=199, max_aspect_ratio=1))
    with pytest.raises(ItemError, match="20 x 10 is more than the 199 pixels"):
        decode_image(pixels, strict)
    assert decode_image(pixels, SPEC).shape == (10, 20, 3)


def test_a_file_over_the_limit_of_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(10**9)
    with path.open("rb") as file:
        for item in (path, file):
            with pytest.raises(ItemError, match=r"open: .* bytes are more than the 1000 that the bundle allows"):
                decode_image(item, ImageSpec(limits=ImageLimits(max_bytes=1000)))


def test_float_pixels_reach_from_zero_to_one() -> None:
    values = np.array([[0, 0.25, 0.5, 1]], np.float32)
    decoded = decode_image(grey_tiff(values, bits=32, sample_format=3), SPEC)
    assert decoded[0, :, 0].tolist() == [0, 64, 128, 255]


HALF_BROKEN_EXIF = (
    b"Exif\0\0II*\0\x08\0\0\0\x02\0"
    b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # orientation 6, then a resolution that lies behind the end
    b"\x1a\x01\x05\0\xff\xff\xff\0\xff\0\0\0" + bytes(4)
)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read", "ignore:Tag data larger")
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_broken_exif_block_does_not_lose_the_picture(file_format: str, caplog: pytest.LogCaptureFixture) -> None:
    picture = Image.new("RGB", (8, 6))
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0no tiff at all"):
        assert decode_image(saved(picture, file_format, exif=exif), SPEC).shape == (6, 8, 3)
    # A JPEG's block Pillow has read, and given up, when it opened the file.
    assert file_format == "JPEG" or "its EXIF block cannot be read" in caplog.text
    assert decode_image(saved(picture, file_format, exif=HALF_BROKEN_EXIF), SPEC).shape == (8, 6, 3)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_strict_warnings_never_turn_a_picture_the_other_way(file_format: str) -> None:
    raw = saved(Image.new("RGB", (8, 6)), file_format, exif=HALF_BROKEN_EXIF)
    with pytest.raises(ItemError, match="decode: the file cannot be decoded"):
        decode_image(raw, SPEC)


def test_a_file_is_read_from_its_start_and_need_not_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: int) -> int:
            raise io.UnsupportedOperation("seek")

    raw = saved(Image.fromarray(noise(5, 7)), "PNG")
    file = io.BytesIO(raw)
    file.seek(20)
    for item in (file, Pipe(raw)):
        np.testing.assert_array_equal(decode_image(item, SPEC), noise(5, 7))


def test_truncated_images_are_not_padded_because_another_library_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ItemError, match=r"open: PIL\.ImageFile\.LOAD_TRUNCATED_IMAGES is set.*Set it to False"):
        decode_image(saved(Image.fromarray(noise(5, 7)), "PNG"), SPEC)


def test_a_pil_image_is_checked_before_it_is_decoded_and_stays_as_it_was() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with Image.open(io.BytesIO(saved(Image.new("RGBA", (30, 20)), "PNG", exif=exif))) as image:
        assert decode_image(image, SPEC).shape == (30, 20, 3)
        assert (image.size, image.mode) == ((30, 20), "RGBA")
    small = ImageSpec(limits=ImageLimits(max_pixels=10))
    with Image.open(io.BytesIO(png(5, 5))) as image, pytest.raises(ItemError, match="more than the 10 pixels"):
        decode_image(image, small)


_MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16"]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(_MODES),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    orientation=st.integers(0, 9),
    background=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_every_mode_and_size_becomes_upright_rgb(
    mode: str, width: int, height: int, orientation: int, background: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (width, height))
    image.getexif()[ORIENTATION] = orientation
    decoded = decode_image(image, ImageSpec(background=background))
    assert decoded.shape == ((width, height, 3) if 5 <= orientation <= 8 else (height, width, 3))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))),
    file_format=st.sampled_from(["PNG", "BMP", "TIFF", "PPM", "WEBP"]),
)
def test_lossless_files_give_back_every_pixel(pixels: np.ndarray, file_format: str) -> None:
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    raw = saved(Image.fromarray(pixels), file_format, **options)
    np.testing.assert_array_equal(decode_image(raw, SPEC), pixels)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    alpha=st.integers(0, 255),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    ground=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_alpha_mixes_colour_and_background(
    alpha: int, colour: tuple[int, int, int], ground: tuple[int, int, int]
) -> None:
    decoded = decode_image(Image.new("RGBA", (1, 1), (*colour, alpha)), ImageSpec(background=ground))
    expected = (np.array(colour) * alpha + np.array(ground) * (255 - alpha)) / 255
    assert np.abs(decoded[0, 0] - expected).max() <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    file_format=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.floats(0.1, 1),
)
def test_damaged_bytes_decode_or_raise_item_errors_and_nothing_else(
    file_format: str, changes: list[tuple[float, int]], kept: float
) -> None:
    raw = bytearray(saved(Image.fromarray(noise(24, 16)), file_format))
    for where, value in changes:
        raw[int(where * len(raw))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it repairs
        try:
            pixels = decode_image(
                bytes(raw[: int(kept * len(raw))]), ImageSpec(limits=ImageLimits(max_pixels=1_000_000))
            )
        except ItemError as error:
            assert error.stage in ("open", "decode")
        else:
            assert pixels.shape[2] == 3
