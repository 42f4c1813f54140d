import pytest
from PIL import Image

from mmalign_runtime.image.formats import HEAD_BYTES, promised_size
from tests.runtime.pictures import noise, saved, webp


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 70), (300, 7)])
def test_every_kind_of_webp_header_is_read(options: dict[str, object], height: int, width: int) -> None:
    raw = saved(Image.fromarray(noise(height, width)), "WEBP", **options)
    assert promised_size("WEBP", raw[:HEAD_BYTES]) == (width, height)


def test_png_and_other_formats() -> None:
    raw = saved(Image.fromarray(noise(3, 5)), "PNG")
    assert promised_size("PNG", raw) == (5, 3)
    assert promised_size("PNG", raw[:20]) is None
    assert promised_size("WEBP", webp(5, 3)[:25]) is None
    assert promised_size("GIF", raw) is None
