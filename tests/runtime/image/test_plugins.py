import io
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from PIL import Image

from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import decode_image, plugins
from mmalign_runtime.spec import ImageSpec
from tests.runtime.pictures import saved

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(64)
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0mif1avif" + bytes(64)


@pytest.fixture(autouse=True)
def forget_plugins() -> Iterator[None]:
    plugins._find_plugin.cache_clear()
    yield
    plugins._find_plugin.cache_clear()


@pytest.mark.parametrize(("raw", "package"), [(HEIC, "pillow-heif"), (AVIF, "pillow-avif-plugin")])
def test_a_missing_plugin_is_named(raw: bytes, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "find_spec", lambda name: None)
    with pytest.raises(ItemError, match=f"open: .* nothing installed here decodes it. Run .*pip install {package}"):
        decode_image(raw, ImageSpec())


@pytest.mark.skipif(find_spec("PIL.AvifImagePlugin") is None, reason="this Pillow (before 11.3) has no AVIF")
def test_avif_is_decoded_and_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = saved(Image.new("RGB", (64, 48), (200, 30, 40)), "AVIF", exif=exif)
    decoded = decode_image(raw, ImageSpec())
    assert decoded.shape == (64, 48, 3)
    assert abs(decoded.astype(int) - (200, 30, 40)).max() <= 3


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
def test_heic_is_decoded_without_being_registered_for_others() -> None:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(buffer)
    decoded = decode_image(buffer.getvalue(), ImageSpec())
    assert decoded.shape == (48, 64, 3)
    assert abs(decoded.astype(int) - (200, 30, 40)).max() <= 3
    assert "HEIF" not in Image.OPEN
