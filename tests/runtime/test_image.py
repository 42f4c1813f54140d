import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec

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


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this many pixels and holds none of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", len(data)) + name + data for name, data in ((b"IHDR", header), (b"IDAT", b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk + struct.pack(">I", zlib.crc32(chunk[4:])) for chunk in chunks)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, file_format: str) -> None:
    stored = noise(4, 6)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    raw = saved(Image.fromarray(stored), file_format, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(raw, SPEC), UPRIGHT[orientation](stored))


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
    ("contents", "reason"), [(b"", "the file is empty"), (b"this is a text", "the bytes are no image")]
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
    with pytest.raises(ItemError, match="a NoneType is no image: pass a path"):
        decode_image(None, SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "reason"), [(2_000, "2000 x 2000 is more than"), (60_000, "Scale the image down")])
def test_an_oversized_image_is_refused_by_its_header(side: int, reason: str) -> None:
    with pytest.raises(ItemError, match=f"decode: .*{reason}"):
        decode_image(png_header(side, side), ImageSpec(max_pixels=1_000_000))


def test_a_strip_that_would_grow_without_limit_is_refused_where_the_shorter_side_is_scaled() -> None:
    strip = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ItemError, match="20000 x 1 is too thin"):
        decode_image(strip, ImageSpec(resize="shortest_edge"))
    assert decode_image(strip, ImageSpec(resize="squash")) is not None


def test_float_pixels_have_no_agreed_range_and_are_refused() -> None:
    raw = saved(Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "TIFF")
    with pytest.raises(ItemError, match=r"decode: seen float pixels \(mode F\)"):
        decode_image(raw, SPEC)


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
            pixels = decode_image(bytes(raw[: int(kept * len(raw))]), ImageSpec(max_pixels=1_000_000))
        except ItemError as error:
            assert error.stage in ("open", "decode")
        else:
            assert pixels.shape[2] == 3
