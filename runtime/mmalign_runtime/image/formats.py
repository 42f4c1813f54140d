"""What a file's first bytes say it is: a picture we decode, or something else that an error can name.

Only the formats listed here are ever opened. Pillow knows forty, among them some that start other programs (EPS) or
hold a second size inside (ICO, ICNS), where a header's promise is no limit.
"""

from __future__ import annotations

import re
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
    (rb"....ftyp(?:avif|avis|(?:mif1|msf1|miaf).{0,64}?avi[fs])", "AVIF"),
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "HEIF"),
    (rb"P[1-6][\s#]|P[fF]\n", "PPM"),
    (rb"qoif", "QOI"),
)
_CONVERT = "Convert it to JPEG or PNG."
_FRAME = "Extract a frame as JPEG or PNG."
_DEVELOP = "Develop it to JPEG or TIFF."
_UNPACK = "Unpack it."
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
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON", "Replace it by the image; a service's error may have been saved."),
    (rb"8BPS", "Photoshop", _CONVERT),
    (rb"\x00\x00[\x01\x02]\x00", "an icon file (ICO)", _CONVERT),
    (rb"icns", "an icon file (ICNS)", _CONVERT),
    (rb"DDS ", "a DDS texture", _CONVERT),
    (rb"\x76\x2f\x31\x01", "OpenEXR", "Map its tones to 8 bits and save as PNG."),
    (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR", "Map its tones to 8 bits and save as PNG."),
    (rb"II\*\x00....CR|....ftypcrx|FUJIFILMCCD-RAW|IIU\x00|IIR[OS]|MMOR", "camera RAW", _DEVELOP),
    (rb"....ftyp|....moov|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xb3\xba]|FLV\x01", "a video", _FRAME),
    (rb"PK(?:\x03\x04|\x05\x06)|\x1f\x8b|BZh|7z\xbc\xaf|Rar!|\xfd7zXZ|\x28\xb5\x2f\xfd", "an archive", _UNPACK),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    (rb".{128}DICM", "DICOM", "Apply its window and save as PNG."),
    (rb"\x93NUMPY", "a numpy file", "Load it with numpy.load and pass the array."),
    (rb"\x89HDF", "HDF5", "Read the array and pass it."),
    (rb"PAR1", "Parquet", "Pass the file to `mmalign embed`, which reads its rows."),
)


def sniff_format(head: bytes) -> ImageFormat | None:
    """Return the format that the first bytes announce, or None when it is none that is decoded here."""
    return next((name for pattern, name in _DECODED if re.match(pattern, head, re.DOTALL)), None)


def describe_foreign(head: bytes) -> str:
    """Say what bytes that are no picture look like, and what to do."""
    for pattern, name, fix in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return f"these bytes are {name}, no image in a format that is decoded here. {fix}"
    return "the bytes are no image in a format that is decoded here. Check the file, or convert it to JPEG or PNG."
