"""The Pillow class that reads each format, loaded at first need and called by itself.

`Image.open` would do as much, but it measures against `Image.MAX_IMAGE_PIXELS` first: a number of the whole process,
which any library may change, and which warns or raises before the bundle's own limits are asked. Called directly, the
classes read a header and nothing else, and nothing is registered or changed for anyone else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TypeAlias, cast

from PIL import ImageFile

from mmalign_runtime.image.formats import ImageFormat
from mmalign_runtime.image.refusal import Refusal

Plugin: TypeAlias = Callable[[IO[bytes]], ImageFile.ImageFile]

_CLASSES: dict[ImageFormat, tuple[str, ...]] = {
    # Pillow has AVIF built in since 11.3; the separate plugin serves older ones. Deletable when 11.3 is the oldest.
    "AVIF": ("PIL.AvifImagePlugin:AvifImageFile", "pillow_avif.AvifImagePlugin:AvifImageFile"),
    "BMP": ("PIL.BmpImagePlugin:BmpImageFile",),
    "GIF": ("PIL.GifImagePlugin:GifImageFile",),
    "HEIF": ("pillow_heif.as_plugin:HeifImageFile",),
    # Not the factory, which would open an MPO as one: its first picture is the plain JPEG.
    "JPEG": ("PIL.JpegImagePlugin:JpegImageFile",),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",),
    "PNG": ("PIL.PngImagePlugin:PngImageFile",),
    "PPM": ("PIL.PpmImagePlugin:PpmImageFile",),
    "QOI": ("PIL.QoiImagePlugin:QoiImageFile",),
    "TIFF": ("PIL.TiffImagePlugin:TiffImageFile",),
    "WEBP": ("PIL.WebPImagePlugin:WebPImageFile",),
}
_INSTALL: dict[ImageFormat, str] = {
    "AVIF": "`pip install 'pillow>=11.3'` or `pip install pillow-avif-plugin`",
    "HEIF": "`pip install pillow-heif` or `pip install 'mmalign-runtime[heif]'`",
}


def load_plugin(image_format: ImageFormat) -> Plugin:
    """Return the class that opens a format. Raises Refusal that names the package where it is not installed."""
    plugin = _find_plugin(image_format)
    if plugin is None:
        name = "HEIC (HEIF)" if image_format == "HEIF" else image_format
        install = _INSTALL.get(image_format, "`pip install --force-reinstall pillow`")
        reason = f"these bytes are {name}, and nothing installed here decodes it. Run {install}, or convert it to JPEG."
        raise Refusal("open", reason)
    return plugin


@lru_cache(maxsize=len(_CLASSES))
def _find_plugin(image_format: ImageFormat) -> Plugin | None:
    for entry in _CLASSES[image_format]:
        name, _, attribute = entry.partition(":")
        if find_spec(name.partition(".")[0]) is None or (name.startswith("PIL.") and find_spec(name) is None):
            continue
        module = import_module(name)
        if getattr(module, "SUPPORTED", True):  # False where Pillow was built without the codec
            return cast("Plugin", getattr(module, attribute))
    return None
