import pytest
from PIL import Image

from mmalign_runtime.image.formats import HEAD_BYTES, describe_foreign, sniff_format
from tests.runtime.pictures import noise, saved


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM"])
def test_a_format_is_known_by_its_first_bytes(name: str) -> None:
    assert sniff_format(saved(Image.fromarray(noise(4, 4)), name)[:HEAD_BYTES]) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf", "AVIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isomavc1", None),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"II*\0\x10\0\0\0CR\x02\0", None),
        (b"RIFF\x10\0\0\0AVI LIST", None),
        (b"", None),
    ],
)
def test_containers_are_told_apart_by_their_brand(head: bytes, name: str | None) -> None:
    assert sniff_format(head) == name


@pytest.mark.parametrize(
    ("head", "seen"),
    [
        (b"<!-- saved --><HTML>", "HTML"),
        (b"<!-- drawn --><svg>", "SVG"),
        (b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC ''><svg>", "SVG"),
        (b"RIFF\x10\0\0\0AVI LIST", "a video"),
        (b"\x1a\x45\xdf\xa3", "a video"),
        (b"\x1f\x8b\x08", "an archive"),
        (b"PAR1", "Parquet"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ],
)
def test_what_is_no_picture_is_named(head: bytes, seen: str) -> None:
    assert describe_foreign(head).startswith(f"these bytes are {seen}, no image in a format that is decoded here.")
