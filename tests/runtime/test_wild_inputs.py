"""Everything that is no picture and no text, as it comes in the wild: each kind in one batch with good neighbours.

Each is an ItemError with its index and name, and its neighbours get the vectors they get alone.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import Embedder
from mmalign_runtime.errors import ItemError
from mmalign_runtime.image import describe
from tests.runtime.pictures import (
    TIFF_LONG,
    bmp,
    chunk,
    cut,
    gif,
    grey_tiff,
    jpeg_of_size,
    noise,
    png,
    saved,
    tiff,
    webp,
)

Make = Callable[[Path], object]

PICTURE = Image.fromarray(noise(40, 56))
JPEG = saved(PICTURE, "JPEG")
FLOATS = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
FTYP = b"\0\0\0\x18ftyp"
BOMB = 60_000
INFLATED = zlib.compress(bytes(50_000_000), 9)
PROFILE_BOMB, TEXT_BOMB = (chunk(name, b"a\0\0" + INFLATED) for name in (b"iCCP", b"zTXt"))
# The tiny bundle's vectors are of unit length: this is float32 rounding between batch sizes.
SAME = 1e-6


class Unreadable:
    """A file object over a connection that breaks."""

    name = "s3://bucket/dog.jpg"

    def read(self, size: int = -1) -> bytes:
        raise TimeoutError("the connection broke")


class TextReader:
    def read(self, size: int = -1) -> str:
        return "not bytes"


class Tensor:
    """What a tensor of another library shows of itself."""

    def __array__(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


def closed_file(folder: Path) -> object:
    path = folder / "closed.jpg"
    path.write_bytes(JPEG)
    file = path.open("rb")
    file.close()
    return file


def closed_image(folder: Path) -> object:
    image = Image.open(io.BytesIO(JPEG))
    image.close()
    return image


def text_file(folder: Path) -> object:
    return io.StringIO("not bytes")


def broken_link(folder: Path) -> object:
    (folder / "link.jpg").symlink_to(folder / "nowhere.jpg")
    return folder / "link.jpg"


def endless_link(folder: Path) -> object:
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    return folder / "loop.jpg"


def pipe(folder: Path) -> object:
    os.mkfifo(folder / "pipe.jpg")
    return folder / "pipe.jpg"


def below_a_file(folder: Path) -> object:
    (folder / "file").write_bytes(JPEG)
    return folder / "file" / "dog.jpg"


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("dog.jpg", JPEG)
    return buffer.getvalue()


def tarred(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("dog.jpg"))
    return buffer.getvalue()


def array_file(folder: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, noise(4, 4))
    return buffer.getvalue()


def flipped_bit(raw: bytes, name: bytes) -> bytes:
    damaged = bytearray(raw)
    damaged[raw.index(name) + 40] ^= 1
    return bytes(damaged)


def stray_marker(raw: bytes) -> bytes:
    middle = len(raw) * 2 // 3
    return raw[:middle] + b"\xff\x3a" + raw[middle:]


def restarts_out_of_order() -> bytes:
    raw = saved(PICTURE, "JPEG", restart_marker_blocks=2)
    return raw.replace(b"\xff\xd2", b"\xff\xd5", 1)


def raw_bytes(contents: bytes) -> Make:
    return lambda folder: contents


def stored(name: str, contents: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(contents)
        return folder / name

    return make


def given(item: object) -> Make:
    return lambda folder: item


# What comes instead of a picture: how it is made, the stage that finds it, and what the error says of it.
IMAGES: dict[str, tuple[Make, str, str]] = {
    # paths
    "missing file": (lambda folder: folder / "missing.jpg", "open", "there is no such file"),
    "empty string": (given(""), "open", "there is no such file"),
    "folder": (lambda folder: folder, "open", "Is a directory"),
    "broken link": (broken_link, "open", "there is no such file"),
    "endless link": (endless_link, "open", "symbolic links"),
    "path below a file": (below_a_file, "open", "Not a directory"),
    "named pipe": (pipe, "open", "a pipe, a socket or a device"),
    "device": (given("/dev/zero"), "open", "a pipe, a socket or a device"),
    "NUL in a path": (given("dog\0.jpg"), "open", "NUL character"),
    "path too long": (given("d" * 5000 + ".jpg"), "open", "File name too long"),
    "path that is no file name": (given("dog\ud83d.jpg"), "open", "the path is not a file name"),
    "URL": (given("https://example.org/dog.jpg"), "open", "Download it first"),
    "URL as a path": (given(Path("https://example.org/dog.jpg")), "open", "this is a URL.*Download it first"),
    "URL of a bucket": (given("s3://bucket/dog.jpg"), "open", "this is a URL.*Download it first"),
    "URL of a data set": (given(Path("hf://datasets/dog.jpg")), "open", "this is a URL.*Download it first"),
    "URL of a file": (given("file:///data/a%20dog.jpg"), "open", r"Pass the path alone: /data/a dog\.jpg"),
    "URL without its scheme": (given("//example.org/dog.jpg"), "open", "a URL without its scheme"),
    "URL behind a folder": (lambda folder: folder / "https://example.org/dog.jpg", "open", "this is a URL"),
    "data URL as a path": (given(Path("data:image/png;base64,iVBO//Rw0KGgo=")), "open", "b64decode"),
    "data URL behind a folder": (lambda folder: folder / "data:image/png;base64,iVBO", "open", "b64decode"),
    "base64 of a small GIF": (given("R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="), "open", "base64"),
    "base64 behind a folder": (lambda folder: folder / ("iVBORw0KGgoAAAANSUhEUgAA" * 2), "open", "base64"),
    "base64 of a JPEG, longer than any name": (given("/9j/4AAQSkZJRgABAQAAAQ" * 500), "open", "base64"),
    "data URL as bytes": (raw_bytes(b"data:image/png;base64,iVBORw0KGgo="), "open", "these bytes are a data URL"),
    "base64 as bytes": (raw_bytes(b"iVBORw0KGgoAAAANSUhEUgAA"), "open", "these bytes are base64"),
    "URL as bytes": (raw_bytes(b"https://example.org/dog.jpg"), "open", "these bytes are a URL"),
    "data URL": (given("data:image/png;base64,iVBORw0KGgo="), "open", "b64decode"),
    "base64 text": (given("iVBORw0KGgoAAAANSUhEUgAA" * 9), "open", "looks like base64"),
    # file objects
    "closed file": (closed_file, "open", "closed file"),
    "text file": (text_file, "open", "gives str, expected bytes"),
    "reader of str": (given(TextReader()), "open", "gives str, expected bytes"),
    "connection that breaks": (given(Unreadable()), "open", "the connection broke"),
    "empty file object": (lambda folder: io.BytesIO(), "open", "the file is empty"),
    # other objects
    "None": (given(None), "open", "a NoneType is not an image"),
    "int": (given(7), "open", "a int is not an image"),
    "dict": (given({"path": "dog.jpg"}), "open", "a dict is not an image"),
    "list of paths": (given(["dog.jpg"]), "open", "a list is not an image"),
    "memoryview of floats": (given(memoryview(FLOATS)), "open", r"a memoryview that is not a row of bytes"),
    "bytearray of a text": (given(bytearray(b"no image")), "open", "not an image in a format"),
    "numpy scalar": (given(np.float32(1)), "open", "a float32 is not an image"),
    "tensor": (given(Tensor()), "open", r"tensor\.numpy\(\)"),
    "closed PIL image": (closed_image, "decode", "closed"),
    "PIL image of integers": (given(Image.new("I", (4, 4), 70_000)), "decode", "from 70000 to 70000"),
    "PIL image in Lab": (given(Image.new("LAB", (4, 4))), "decode", "mode LAB"),
    # arrays
    "float array": (given(np.zeros((4, 4, 3), np.float32)), "decode", r"np\.rint\(array \* 255\)"),
    "float array in 0..255": (given(noise(4, 4).astype(np.float64)), "decode", "range is not known"),
    "bool array": (given(np.zeros((4, 4, 3), bool)), "decode", r"array\.astype\(np\.uint8\) \* 255"),
    "int64 array": (given(noise(4, 4).astype(np.int64)), "decode", "if its values are in 0..255"),
    "uint16 array": (given(noise(4, 4).astype(np.uint16)), "decode", "array // 257"),
    "object array": (given(np.full((4, 4, 3), None)), "decode", "not pixel values"),
    "text array": (given(np.full((4, 4, 3), "a")), "decode", "not pixel values"),
    "masked array": (given(np.ma.masked_equal(noise(4, 4), 7)), "decode", "masked array"),
    "channels first": (given(np.zeros((3, 8, 9), np.uint8)), "decode", r"array\.transpose\(1, 2, 0\)"),
    "three rows": (given(np.zeros((3, 8, 3), np.uint8)), "decode", "cannot be told"),
    "grey array": (given(np.zeros((4, 5), np.uint8)), "decode", r"np\.repeat\(array\[:, :, None\]"),
    "grey array of one channel": (given(np.zeros((4, 5, 1), np.uint8)), "decode", r"np\.repeat\(array, 3"),
    "RGBA array": (given(np.zeros((4, 5, 4), np.uint8)), "decode", r"PIL\.Image\.fromarray\(array\) if it is RGBA"),
    "batch of arrays": (given(np.zeros((2, 4, 5, 3), np.uint8)), "decode", r"list\(array\)"),
    "empty array": (given(np.zeros((0, 4, 3), np.uint8)), "decode", "it has no pixels"),
    # bytes that are something else
    "empty file": (stored("empty.jpg", b""), "open", "the file is empty"),
    "empty bytes": (raw_bytes(b""), "open", "the file is empty"),
    "text named jpg": (stored("text.jpg", b"this is a text"), "open", "not an image in a format"),
    "zero bytes": (stored("zeros.jpg", bytes(4096)), "open", "not an image in a format"),
    "random bytes": (stored("random.jpg", noise(64, 64).tobytes()), "open", "not an image in a format"),
    "HTML": (stored("page.jpg", b"\n<!DOCTYPE html><html>404</html>"), "open", "these bytes are HTML"),
    "SVG": (stored("logo.jpg", b"<?xml version='1.0'?>\n<svg/>"), "open", "these bytes are SVG"),
    "XML": (stored("error.jpg", b"<?xml version='1.0'?><Error/>"), "open", "these bytes are XML"),
    "JSON": (stored("error.json", json.dumps({"error": 404}).encode()), "open", "these bytes are JSON"),
    "PDF": (stored("page.pdf", b"%PDF-1.7\n"), "open", "these bytes are PDF"),
    "PostScript": (stored("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "open", "these bytes are PostScript"),
    "zip": (lambda folder: zipped(folder), "open", "these bytes are an archive"),
    "tar": (lambda folder: tarred(folder), "open", "these bytes are a tar archive"),
    "MP4": (stored("clip.jpg", FTYP + b"isom" + bytes(64)), "open", "these bytes are a video"),
    "JPEG XL": (raw_bytes(b"\xff\x0a" + bytes(64)), "open", "these bytes are JPEG XL.*djxl"),
    "camera RAW": (raw_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(64)), "open", "these bytes are camera RAW"),
    "thumbnail of a RAW": (raw_bytes(tiff(8, 8, [(254, TIFF_LONG, 1)], bytes(64))), "open", "is a thumbnail"),
    "icon": (raw_bytes(saved(PICTURE, "ICO")), "open", "an icon file"),
    "Photoshop": (raw_bytes(b"8BPS\0\x01" + bytes(64)), "open", "these bytes are Photoshop"),
    "OpenEXR": (raw_bytes(b"\x76\x2f\x31\x01" + bytes(64)), "open", "these bytes are OpenEXR"),
    "DICOM": (raw_bytes(bytes(128) + b"DICM" + bytes(64)), "open", "these bytes are DICOM"),
    "numpy file": (lambda folder: array_file(folder), "open", "these bytes are a numpy file"),
    "Git LFS pointer": (stored("dog.png", b"version https://git-lfs.github.com/spec/v1\n"), "open", "git lfs pull"),
    # damage
    "truncated JPEG": (stored("half.jpg", cut(JPEG, 0.5)), "decode", "truncated"),
    "JPEG cut and closed": (raw_bytes(cut(JPEG, 0.5) + b"\xff\xd9"), "decode", "truncated"),
    "JPEG header alone": (raw_bytes(JPEG[:40]), "decode", "cannot be decoded"),
    "marker inside a JPEG's scan": (raw_bytes(stray_marker(JPEG)), "decode", "marker FF 3A"),
    "JPEG restarts out of order": (raw_bytes(restarts_out_of_order()), "decode", "out of order"),
    "truncated PNG": (raw_bytes(cut(saved(PICTURE, "PNG"), 0.6)), "decode", "the PNG is truncated"),
    "PNG with a wrong checksum": (raw_bytes(flipped_bit(saved(PICTURE, "PNG"), b"IDAT")), "decode", "checksum.*IDAT"),
    "truncated GIF": (raw_bytes(cut(saved(PICTURE, "GIF"), 0.6)), "decode", "truncated"),
    "truncated WebP": (raw_bytes(cut(saved(PICTURE, "WEBP"), 0.6)), "decode", "cannot be decoded"),
    "truncated TIFF": (raw_bytes(cut(saved(PICTURE, "TIFF"), 0.6)), "decode", "truncated"),
    "truncated BMP": (raw_bytes(cut(saved(PICTURE, "BMP"), 0.6)), "decode", "truncated"),
    "truncated JPEG 2000": (raw_bytes(cut(saved(PICTURE, "JPEG2000"), 0.6)), "decode", "cannot be decoded"),
    # pixels without an agreed meaning
    "float TIFF in 0..255": (raw_bytes(grey_tiff(FLOATS * 255, bits=32, sample_format=3)), "decode", "0 to 255"),
    "float TIFF with NaN": (raw_bytes(grey_tiff(FLOATS * np.nan, bits=32, sample_format=3)), "decode", "nan"),
    "32-bit TIFF": (raw_bytes(grey_tiff(FLOATS.astype(np.uint32), bits=32)), "decode", "from 0 to 1"),
    "signed TIFF": (raw_bytes(grey_tiff(-FLOATS.astype(np.int16), bits=16, sample_format=2)), "decode", "from -1"),
    "double TIFF": (raw_bytes(grey_tiff(FLOATS.astype(np.float64), bits=64, sample_format=3)), "decode", "rare kind"),
    "Lab TIFF": (raw_bytes(saved(Image.new("LAB", (4, 4)), "TIFF")), "decode", "mode LAB"),
    # limits
    "PNG bomb": (raw_bytes(png(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "JPEG bomb": (raw_bytes(jpeg_of_size(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "WebP bomb": (raw_bytes(webp(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "TIFF bomb": (raw_bytes(tiff(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "GIF bomb": (raw_bytes(gif(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "BMP bomb": (raw_bytes(bmp(BOMB, BOMB)), "decode", "more than the 100000000 pixels"),
    "TIFF tile bomb": (raw_bytes(tiff(8, 8, [(322, 4, BOMB), (323, 4, BOMB)])), "decode", "tiles of 60000 x 60000"),
    "PNG profile bomb": (raw_bytes(png(8, 8, PROFILE_BOMB)), "decode", "Decompressed data too large"),
    "PNG text bomb": (raw_bytes(png(8, 8, TEXT_BOMB)), "decode", "Decompressed data too large"),
    "long side": (given(np.zeros((2, 70_000, 3), np.uint8)), "decode", "a side over the 65535"),
    "thin strip": (given(np.zeros((2, 402, 3), np.uint8)), "decode", "too thin: 201 to 1"),
}

TEXTS: dict[str, tuple[object, str]] = {
    "None": (None, "seen NoneType, expected str"),
    "int": (5, "seen int, expected str"),
    "float nan": (float("nan"), "seen float, expected str"),
    "bytes": (b"a dog", r"text\.decode\('utf-8'\)"),
    "list": (["a dog"], "seen list, expected str"),
    "dict": ({"text": "a dog"}, "seen dict, expected str"),
    "path": (Path("dog.txt"), "seen PosixPath, expected str"),
    "array": (np.array("a dog"), "seen ndarray, expected str"),
    "lone high surrogate": ("dog \ud83d", "a lone surrogate at character 4"),
    "lone low surrogate": ("\udc36 dog", "a lone surrogate at character 0"),
    "undecodable byte kept as a surrogate": (b"caf\xe9".decode("utf-8", "surrogateescape"), "character 3"),
    "a book": ("dog " * 300_000, "1200000 characters are more than the 1000000"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_wrong_image_is_named_and_its_neighbours_are_embedded(embedder: Embedder, tmp_path: Path, kind: str) -> None:
    make, stage, reason = IMAGES[kind]
    wrong = make(tmp_path)
    good = [JPEG, np.ascontiguousarray(noise(30, 20))]
    batch = embedder.encode_image([good[0], wrong, good[1]], on_error="skip")  # type: ignore[list-item]
    assert batch.indices.tolist() == [0, 2]
    alone = np.concatenate([embedder.encode_image([item]) for item in good])
    assert np.abs(batch.vectors - alone).max() <= SAME
    check(batch.errors, describe(wrong), stage, reason)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_wrong_text_is_named_and_its_neighbours_are_embedded(embedder: Embedder, kind: str) -> None:
    wrong, reason = TEXTS[kind]
    good = ["a good dog", ""]
    batch = embedder.encode_text([good[0], wrong, good[1]], on_error="skip")  # type: ignore[list-item]
    assert batch.indices.tolist() == [0, 2]
    alone = np.concatenate([embedder.encode_text([text]) for text in good])
    assert np.abs(batch.vectors - alone).max() <= SAME
    check(batch.errors, None, "tokenize", reason)


def test_permission_denied_is_named(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(JPEG)

    def denied(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # the superuser, who runs many containers, is never denied
    with pytest.raises(ItemError, match=r"secret\.jpg.*open: Permission denied; expected a readable file"):
        embedder.encode_image([path])


def test_the_kinds_are_counted() -> None:
    assert (len(IMAGES), len(TEXTS)) == (111, 12)  # 60 at least are promised


def check(errors: tuple[ItemError, ...], source: str | None, stage: str, reason: str) -> None:
    (error,) = errors
    assert (error.index, error.stage) == (1, stage)
    assert source is None or error.source == source
    with pytest.raises(ItemError, match=f"(?s)item 1 .*{stage}: .*{reason}"):
        raise error
