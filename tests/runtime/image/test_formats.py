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
    assert describe_foreign(head).startswith(f"these bytes are {seen}, not an image in a format that is decoded here.")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
@pytest.mark.parametrize("note", [b"", b"a note"])
def test_a_tga_is_not_called_an_icon(mode: str, compression: str | None, note: bytes) -> None:
    picture = Image.fromarray(noise(300, 260)).convert(mode)
    raw = saved(picture, "TGA", compression=compression, id_section=note)
    assert describe_foreign(raw[:HEAD_BYTES]).startswith("these bytes are TGA (Targa)")
    assert sniff_format(raw[:HEAD_BYTES]) is None


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (256, 256)])
def test_an_icon_is_called_one(size: tuple[int, int]) -> None:
    raw = saved(Image.fromarray(noise(256, 256)), "ICO", sizes=[size])
    assert describe_foreign(raw[:HEAD_BYTES]).startswith("these bytes are an icon file (ICO)")
    cursor = b"\0\0\2\0\1\0" + raw[6:]
    assert describe_foreign(cursor[:HEAD_BYTES]).startswith("these bytes are an icon file (ICO)")


@pytest.mark.parametrize(
    ("head", "seen"),
    [
        (b"RIFF\x10\0\0\0WAVEfmt ", "audio"),
        (b"ID3\x04\0\0", "audio"),
        (b"\xff\xfb\x90\x64", "audio"),
        (b"OggS\0\2", "audio"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "audio"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"P7\nWIDTH 4\n", "a netpbm PAM"),
        (b"II\xbc\x01\x08\0\0\0", "JPEG XR"),
        (b"BZh91AY&SY", "an archive"),
        (b"SIMPLE  =                    T", "FITS"),
        (b'[{"error": 404}]', "JSON"),
        (b"[1, 2]", "JSON"),
        (b"{}", "JSON"),
    ],
)
def test_what_has_a_signature_is_named_by_it(head: bytes, seen: str) -> None:
    assert describe_foreign(head).startswith(f"these bytes are {seen}, not an image")


@pytest.mark.parametrize("extra", ["PCX", "SGI", "TGA", "ICO"])
def test_a_picture_in_a_format_that_is_not_decoded_is_not_taken_for_one_that_is(extra: str) -> None:
    assert sniff_format(saved(Image.fromarray(noise(20, 20)), extra)[:HEAD_BYTES]) is None


@pytest.mark.parametrize(
    "text",
    [
        b"P1 goal for the quarter",
        b"P3 5 apples",
        b"P6 is a protein",
        b"BM25 ranks texts by their words",
        b"[[a link]] to a page",
        b"[1] A footnote",
        b"{braces} around a word",
        b"The moov atom",
        b"See ftypes for more",
        b"icns are icons",
        b"DDS means dentist",
        b"BZhang wrote this",
        b"qoif is an abbreviation",
        b"IIRS of the sea",
        b"Rar! cried the lion",
        b"\0" * 64,
        b"\0\0\1\0\0\0" + b"\0" * 60,
    ],
)
def test_a_text_is_not_called_a_file_of_some_format(text: bytes) -> None:
    assert sniff_format(text) is None
    assert describe_foreign(text).startswith("the bytes are not an image in a format that is decoded here.")


@pytest.mark.parametrize(
    "head",
    [
        b"P6\n4 4\n255\n",
        b"P5 4 4 255 ",
        b"P2\n# by a tool\n4 4\n15\n",
        b"P3 # here\n# there\n4 # width\n4\n255\n",
        b"P4\r\n16 1\r\n",
        b"P6\n#" + b"c" * 600,
        b"Pf\n4 4\n-1.0\n",
    ],
)
def test_netpbm_is_known_with_its_comments(head: bytes) -> None:
    assert sniff_format(head[:HEAD_BYTES]) == "PPM"


def test_qoi_is_known_by_its_header() -> None:
    assert sniff_format(saved(Image.fromarray(noise(4, 4)), "QOI")[:HEAD_BYTES]) == "QOI"
