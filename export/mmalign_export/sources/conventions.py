"""How libraries read the same picture differently: not by mistake, but by a convention that a spec may take over."""

from __future__ import annotations

import io

from PIL import ExifTags, Image

from mmalign_runtime.spec import ImageSpec

# Pillow's modes of more than 8 bits, and of other colours: `convert("RGB")` cuts off the ones and mixes the others.
_OTHER_MODES = {"I;16": "16 bits a value", "I;16B": "16 bits a value", "I": "32 bits a value", "F": "float values"}
_OTHER_MODES |= {"CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "LAB"}


def conventions(data: bytes, spec: ImageSpec, resized_as_stored: bool = False) -> tuple[str, ...]:
    """Return why the spec's pixels of a picture may be others than those of a library that goes by other conventions.

    A library that resizes pictures as they are stored (`resized_as_stored`) makes RGB of them only after that.
    Empty for a picture that has only one reading: its pixels must agree.
    """
    with Image.open(io.BytesIO(data)) as image:
        found = []
        if spec.orientation == "applied" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            found.append("turned as EXIF says")
        if spec.alpha == "composited" and image.has_transparency_data:
            found.append("transparency composited")
        if spec.icc_profile == "to_srgb" and "icc_profile" in image.info:
            found.append("colour profile converted")
        if resized_as_stored and image.mode in ("1", "P", "PA"):
            found.append("a palette, resized by nearest neighbours there")
        if resized_as_stored and spec.alpha == "dropped" and image.has_transparency_data:
            found.append("colours weighted by their alpha there")
        if image.mode in _OTHER_MODES:
            found.append(_OTHER_MODES[image.mode])
        return tuple(found)
