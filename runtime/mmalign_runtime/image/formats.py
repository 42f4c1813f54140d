"""What a file's first bytes say it is: a picture we decode, or something else that an error can name.

Only the formats listed here are ever opened. Pillow knows forty, among them some that start other programs (EPS) or
hold a second size inside (ICO, ICNS), where a header's promise limits nothing.
"""

from __future__ import annotations

import re
import struct
from typing import Literal, TypeAlias

ImageFormat: TypeAlias = Literal["AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP"]

HEAD_BYTES = 512  # enough for a tar's "ustar" at 257 and for markup behind a comment

_DECODED: tuple[tuple[bytes, ImageFormat], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II\*\x00(?!....CR)|MM\x00\*|II\+\x00|MM\x00\+", "TIFF"),
    (rb"BM....\x00\x00\x00\x00|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", "BMP"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"\x00...ftyp(?:avif|avis|(?:mif1|msf1|miaf).{0,64}?avi[fs])", "AVIF"),
    (rb"\x00...ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "HEIF"),
    # Two sizes follow, or a comment of any length: "P1 goal" is a text.
    (rb"P[1-6](?=[\s#])(?:\s|#[^\r\n]*[\r\n])*(?:\d+(?:\s|#[^\r\n]*[\r\n])+(?:\d|#)|#[^\r\n]*\Z)|P[fF]\n", "PPM"),
    (rb"qoif.{8}[\x03\x04][\x00\x01]", "QOI"),
)
_CONVERT = "Convert it to JPEG or PNG."
_FRAME = "Extract a frame as JPEG or PNG."
_DEVELOP = "Develop it to JPEG or TIFF."
_UNPACK = "Unpack it."
_REPLACE = "Replace it by the image."
# An object or a list that goes on as JSON does: "[[a link]]" and "{braces}" are texts.
_JSON = rb"\s*(?:\{\s*[\"}]|\[\s*(?:[{\]]|\"[^\"]*\"\s*[,\]]|-?\d[\d.eE+-]*\s*,|\[\s*[\[{\"\d\]-]))"
# Truevision's file format, version 2.0: 18 bytes, without a colour map and with one. Sizes are not 0, and a map has a
# length; the two highest bits of the last byte are kept at 0.
_TGA = (
    rb".\x00[\x02\x03\x0a\x0b]\x00{5}.{4}(?!\x00\x00)..(?!\x00\x00)..[\x01\x08\x0f\x10\x18\x20][\x00-\x3f]"
    rb"|.\x01[\x01\x09]..(?!\x00\x00)..[\x0f\x10\x18\x20].{4}(?!\x00\x00)..(?!\x00\x00)..[\x08\x10][\x00-\x3f]"
)
# What wears a picture's name in the wild, most specific first: what it is, and what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer", "Fetch the file itself with `git lfs pull`."),
    (
        rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
        "JPEG XL",
        "Convert it to JPEG or PNG, for example with `djxl in.jxl out.png`.",
    ),
    (rb"%PDF", "PDF", "Render the page to PNG."),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", "Render it to PNG."),
    (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg", "SVG", "Render it to PNG."),
    (
        rb"\s*(?:<!--.*?-->\s*)?<(?i:!doctype html|html|head|body)",
        "HTML",
        "Download the image, not the page around it.",
    ),
    (rb"\s*<\?xml", "XML", "Replace it by the image."),
    (_JSON, "JSON", "Replace it by the image; a service's error may have been saved."),
    (rb"(?i:data:image/)[\w.+-]+[;,]", "a data URL", "Pass base64.b64decode(url.partition(b',')[2])."),
    (rb"(?i:https?|s3|gs|hf|ftp|file)://\S", "a URL", "Download what it leads to."),
    (rb"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/_-]{12}", "base64", "Pass base64.b64decode(item)."),
    (rb"8BPS\x00[\x01\x02]", "Photoshop", _CONVERT),
    # At least one picture, and of the first the byte that is kept at 0 (or 255, as .NET writes it).
    (rb"\x00\x00[\x01\x02]\x00(?!\x00\x00).[\x00-\x03].{3}[\x00\xff]", "an icon file (ICO)", _CONVERT),
    (rb"icns\x00", "an icon file (ICNS)", _CONVERT),
    (rb"DDS \x7c\x00\x00\x00", "a DDS texture", _CONVERT),
    (rb"\x76\x2f\x31\x01", "OpenEXR", "Map its tones to 8 bits and save as PNG."),
    (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR", "Map its tones to 8 bits and save as PNG."),
    (rb"II\xbc\x01", "JPEG XR", _CONVERT),
    (rb"P7\n", "a netpbm PAM", "Convert it to PNG, or to PPM."),
    (rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", "PCX", _CONVERT),
    (rb"gimp xcf ", "GIMP XCF", _CONVERT),
    (rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF", "a Windows metafile", "Render it to PNG."),
    (
        rb"II\*\x00....CR|\x00...ftypcrx|FUJIFILMCCD-RAW|IIU\x00|IIR[OS]\x08\x00|MMOR\x00",
        "camera RAW",
        _DEVELOP,
    ),
    (rb"\x00...ftypM4[AB]|RIFF....WAVE|FORM....AIF[FC]|OggS\x00|fLaC\x00|MThd\x00|ID3[\x02-\x04]", "audio", _REPLACE),
    (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]|\xff[\xf0\xf1\xf8\xf9][\x40-\x7f]", "audio", _REPLACE),
    (
        rb"\x00...(?:ftyp|moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xb3\xba]|FLV\x01",
        "a video",
        _FRAME,
    ),
    (
        rb"PK(?:\x03\x04|\x05\x06)|\x1f\x8b|BZh[1-9](?:1AY&SY|\x17\x72)|7z\xbc\xaf|Rar!\x1a"
        rb"|\xfd7zXZ|\x28\xb5\x2f\xfd",
        "an archive",
        _UNPACK,
    ),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    (rb".{128}DICM", "DICOM", "Apply its window and save as PNG."),
    (rb"SIMPLE  = ", "FITS", "Scale its values and save as PNG."),
    (rb"\x93NUMPY", "a numpy file", "Load it with numpy.load and pass the array."),
    (rb"\x80[\x02-\x05](?:[cK}\](]|\x95.{6}\x00)", "a Python pickle", "Load it where it was made, and save the image."),
    (rb"\x89HDF", "HDF5", "Read the array and pass it."),
    (rb"PAR1", "Parquet", "Pass the file to `mmalign embed`, which reads its rows."),
    (_TGA, "TGA (Targa)", _CONVERT),  # last: it has no signature, only fields that fit
)

_SIZE_BITS = 0x3FFF


def sniff_format(head: bytes) -> ImageFormat | None:
    """Return the format that the first bytes announce, or None for one that is not decoded here."""
    return next((name for pattern, name in _DECODED if re.match(pattern, head, re.DOTALL)), None)


def describe_foreign(head: bytes) -> str:
    """Say what bytes that are not a picture look like, and what to do."""
    for pattern, name, fix in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return f"these bytes are {name}, not an image in a format that is decoded here. {fix}"
    return "the bytes are not an image in a format that is decoded here. Check the file, or convert it to JPEG or PNG."


def promised_size(image_format: ImageFormat, head: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a PNG or WebP from its first 30 bytes, or None where they do not say it.

    Before Pillow is asked: of a WebP it allocates the canvas, twice, before it can tell the size; of a PNG it inflates
    every compressed text in front of the pixels, up to 64 MiB of them.
    """
    if image_format == "PNG" and head[12:16] == b"IHDR" and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    return _webp_size(head[12:16], head[20:30]) if image_format == "WEBP" and len(head) >= 30 else None


def _webp_size(kind: bytes, data: bytes) -> tuple[int, int] | None:
    """Read the first chunk of a WebP (RFC 9649, sections 2.5 to 2.7)."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & _SIZE_BITS), 1 + (bits >> 14 & _SIZE_BITS)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & _SIZE_BITS for at in (6, 8))
        return width, height
    return None
