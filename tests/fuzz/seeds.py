"""Makes the named seeds of the corpus: `python tests/fuzz/seeds.py`. Files named by a hash were found by fuzzing.

Images of a few hundred bytes in every format that Pillow writes here and some by hand; bundle.json from the fixture
with few files, and edits of it, sealed; archives of a few small files.
"""

from __future__ import annotations

import hashlib
import io
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec
import numpy as np
from PIL import Image

from mmalign_runtime.spec import SPEC_NAME, BundleSpec, decode_spec, encode_spec
from tests.fuzz.mutators import frame, seal
from tests.fuzz.zips import Archive, Entry

CORPUS = Path(__file__).parent / "corpus"
FIXTURE = Path(__file__).parents[1] / "runtime/fixtures/tiny_bundle"

_SIDE = (13, 9)  # odd, wider than high
_EXIF_ORIENTATION = 0x0112

Seeds = Iterator[tuple[str, bytes]]


def image_seeds() -> Seeds:
    """Yield (name, bytes) of small images: formats, colour modes, animations, metadata."""
    rgb = _drawing()
    grey, alpha = rgb.convert("L"), rgb.convert("RGBA")
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6
    two = {"save_all": True, "append_images": [rgb.rotate(180)], "duration": 50}
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    written: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        ("jpeg", rgb, "JPEG", {"quality": 20}),
        ("jpeg-progressive", rgb, "JPEG", {"quality": 20, "progressive": True}),
        ("jpeg-grey-exif", grey, "JPEG", {"quality": 20, "exif": exif}),
        ("jpeg-cmyk", rgb.convert("CMYK"), "JPEG", {"quality": 20}),
        ("mpo", rgb, "MPO", {"quality": 20, "save_all": True, "append_images": [rgb]}),
        ("jpeg2000", rgb, "JPEG2000", {}),
        ("jpeg2000-alpha", alpha, "JPEG2000", {}),
        ("png-1-bit", rgb.convert("1"), "PNG", {}),
        ("png-8-bit", rgb, "PNG", {}),
        ("png-16-bit", deep, "PNG", {}),
        ("png-la", alpha.convert("LA"), "PNG", {}),
        ("png-rgba-exif", alpha, "PNG", {"exif": exif}),
        ("png-palette-transparency", rgb.quantize(8), "PNG", {"transparency": 1}),
        ("png-rgb-transparency", rgb, "PNG", {"transparency": (1, 2, 3)}),
        ("apng", alpha, "PNG", two),
        ("gif", rgb.quantize(8), "GIF", {}),
        ("gif-animated", rgb, "GIF", two),
        ("gif-transparency", rgb.quantize(8), "GIF", {"transparency": 2}),
        ("webp-lossy", rgb, "WEBP", {"quality": 10}),
        ("webp-lossless-alpha", alpha, "WEBP", {"lossless": True}),
        ("webp-animated", alpha, "WEBP", two),
        ("avif", rgb, "AVIF", {"quality": 10}),
        ("avif-alpha", alpha, "AVIF", {"quality": 10}),
        ("tiff-raw", rgb, "TIFF", {}),
        ("tiff-big", rgb, "TIFF", {"big_tiff": True}),
        ("tiff-lzw", rgb, "TIFF", {"compression": "tiff_lzw"}),
        ("tiff-deflate-cmyk", rgb.convert("CMYK"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("tiff-jpeg", rgb, "TIFF", {"compression": "jpeg"}),
        ("tiff-group4", rgb.convert("1"), "TIFF", {"compression": "group4"}),
        ("tiff-packbits-palette", rgb.quantize(8), "TIFF", {"compression": "packbits"}),
        ("tiff-16-bit", deep, "TIFF", {}),
        ("tiff-32-bit", grey.convert("I"), "TIFF", {}),
        ("tiff-float", grey.convert("F"), "TIFF", {}),
        ("tiff-ycbcr", rgb.convert("YCbCr"), "TIFF", {}),
        ("tiff-pages", rgb, "TIFF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        ("bmp", rgb, "BMP", {}),
        ("bmp-palette", rgb.quantize(8), "BMP", {}),
        ("bmp-1-bit", rgb.convert("1"), "BMP", {}),
        ("dib-alpha", alpha, "DIB", {}),
        ("ico", alpha, "ICO", {"sizes": [(8, 8), (12, 9)]}),
        ("ico-bmp", alpha, "ICO", {"sizes": [(8, 8)], "bitmap_format": "bmp"}),
        ("ppm", rgb, "PPM", {}),
        ("pgm-16-bit", deep, "PPM", {}),
        ("pbm", rgb.convert("1"), "PPM", {}),
        ("pfm", grey.convert("F"), "PPM", {}),
        ("tga", alpha, "TGA", {}),
        ("tga-rle", rgb, "TGA", {"compression": "tga_rle"}),
        ("tga-palette", rgb.quantize(8), "TGA", {}),
        ("sgi", rgb, "SGI", {}),
        ("sgi-16-bit", grey, "SGI", {"bpc": 2}),
        ("pcx", rgb, "PCX", {}),
        ("pcx-palette", rgb.quantize(8), "PCX", {}),
        ("dds", alpha, "DDS", {}),
        ("dds-dxt1", alpha.resize((8, 8)), "DDS", {"pixel_format": "DXT1"}),
        ("dds-dxt5", alpha.resize((8, 8)), "DDS", {"pixel_format": "DXT5"}),
        ("qoi", alpha, "QOI", {}),
        ("im", rgb, "IM", {}),
        ("msp", rgb.convert("1"), "MSP", {}),
        ("spider", grey.convert("F"), "SPIDER", {}),
        ("xbm", rgb.convert("1"), "XBM", {}),
        ("eps", grey, "EPS", {}),
    ]
    for name, image, kind, options in written:
        yield name, _encode(image, kind, options)
    yield from _handmade(np.asarray(rgb))


def bundle_seeds() -> Seeds:
    """Yield (name, bytes) of bundle.json: a small sealed one, edits of it, and what is none."""
    spec = small_spec()
    sealed = encode_spec(spec)
    contents: dict[str, object] = msgspec.to_builtins(spec)
    artifact = {"tower": "image", "engine": "onnx", "file": "nowhere.onnx"}
    edits: dict[str, dict[str, object]] = {
        "later-minor": {"format_version": "2.7"},
        "later-major": {"format_version": "3.0"},
        "no-models": {"artifacts": []},
        "model-not-listed": {"artifacts": [artifact]},
        "of-no-tower": {"artifacts": [artifact | {"tower": "sound"}]},
        "golden-outside": {"golden": "../cases.json"},
        "unknown-field": {"news": 1},
        "huge-number": {"embed_dim": 10**30},
    }
    # The corpus has those of format 1 under the same names without the number.
    yield "2-small", sealed
    for name, edit in edits.items():
        yield f"2-{name}", seal(contents | edit) or b""
    yield "2-broken-seal", sealed.replace(b'"embed_dim": 16', b'"embed_dim": 17')
    yield "deep", b'{"format_version":"1.0","x":' + b"[" * 3000
    yield "2-twice", sealed.replace(b"{", b'{"format_version":"1.0",', 1)
    yield "utf-16", '{"format_version":"1.0"}'.encode("utf-16")
    yield "surrogate", b'{"format_version":"1.0","golden":"\\ud800"}'
    yield "empty", b""


def archive_seeds() -> Seeds:
    """Yield (name, bytes) of .mmalign files: one that opens, and one for each way not to."""
    spec = small_spec()
    files = {name: f"the bytes of {name}".encode() for name in spec.files}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sealed = encode_spec(msgspec.structs.replace(spec, files=hashes))

    def entries() -> list[Entry]:
        return [Entry(name.encode(), data) for name, data in {SPEC_NAME: sealed, **files}.items()]

    whole = frame(Archive(entries()).to_bytes())
    yield "small", whole
    yield "without-its-end", whole[:-86]
    yield "cut-in-the-middle", whole[: len(whole) // 2]
    yield "broken-frame", Archive(entries()).to_bytes()
    yield "with-a-prefix", frame(Archive(entries(), prefix=b"#!/bin/sh\n").to_bytes())
    yield "with-a-comment", frame(Archive(entries(), comment=b"hello").to_bytes())
    yield "no-spec", frame(Archive(entries()[1:]).to_bytes())
    yield "a-file-missing", frame(Archive(entries()[:-1]).to_bytes())
    yield "a-file-twice", frame(Archive([*entries(), entries()[1]]).to_bytes())
    yield "one-more-file", frame(Archive([*entries(), Entry(b"more", b"x")]).to_bytes())
    yield "a-byte-changed", frame(Archive([*entries()[:-1], Entry(entries()[-1].name, b"other")]).to_bytes())
    edits: dict[str, dict[str, object]] = {
        "outside": {"name": b"../../x"},
        "absolute": {"name": b"/x"},
        "a-link": {"attributes": 0o120777 << 16},
        "a-folder": {"name": b"onnx/"},
        "encrypted": {"flags": 1},
        "deflated": {"method": 8},
        "other-local-name": {"local_name": b"other"},
        "larger-than-it-is": {"size": 0xFFFFFFFE, "packed_size": 0xFFFFFFFE},
        "overlapping": {"offset": 0},
        "wrong-crc": {"crc": 0},
        "zip64": {"extra": b"\x01\x00\x18\x00" + b"\xff" * 24, "size": 0xFFFFFFFF, "packed_size": 0xFFFFFFFF},
    }
    for name, edit in edits.items():
        changed = entries()
        for field, value in edit.items():
            setattr(changed[-1], field, value)
        yield name, frame(Archive(changed).to_bytes())


def small_spec() -> BundleSpec:
    """Return the fixture's spec with one precision and the least number of files."""
    spec = decode_spec((FIXTURE / "bundle.json").read_bytes())
    named = [*spec.towers.values(), *spec.artifacts]
    names = (spec.golden, *(name for each in named for name in each.files().values()))
    files = {name: spec.files[name] for name in names}
    provenance = msgspec.structs.replace(spec.provenance, versions={"mmalign": "0.1.0"})
    return msgspec.structs.replace(spec, files=files, provenance=provenance)


def write_seeds(folder: Path) -> None:
    """Write every seed to folder/TARGET/NAME."""
    for target, seeds in {"image": image_seeds, "bundle": bundle_seeds, "archive": archive_seeds}.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / target / name).write_bytes(data)


def _drawing() -> Image.Image:
    """A gradient with a square on it: few bytes in every format, and no two corners alike."""
    width, height = _SIDE
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 19, rows * 27, np.full_like(rows, 90)], axis=-1).astype(np.uint8)  # (H, W, 3)
    pixels[2:5, 3:7] = (250, 240, 10)
    return Image.fromarray(pixels)


def _encode(image: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    save: Callable[..., None] = image.save
    save(buffer, kind, **options)
    return buffer.getvalue()


def _handmade(rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Seeds:
    """Yield formats that Pillow reads but does not write: PSD, Sun raster, FITS, FLI, XPM, GIMP brush."""
    height, width, _ = rgb.shape
    planes = rgb.transpose(2, 0, 1).tobytes()
    yield "psd", b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3) + bytes(12) + bytes(2) + planes
    rows = b"".join(row.tobytes() + bytes(row.nbytes % 2) for row in rgb)
    yield "sun", struct.pack(">8I", 0x59A66A95, width, height, 24, len(rows), 1, 0, 0) + rows
    png = _encode(Image.fromarray(rgb), "PNG", {})
    yield "icns", b"icns" + struct.pack(">I4sI", 16 + len(png), b"ic07", 8 + len(png)) + png
    cards = ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2")
    sides = (f"NAXIS1  = {width:20}", f"NAXIS2  = {height:20}", "END")
    header = "".join(card.ljust(80) for card in (*cards, *sides)).ljust(2880).encode()
    yield "fits", header + rgb[:, :, 0].tobytes()
    yield "xpm", b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n". c #ff0000",\n"# c #00ff00",\n".#",\n"#.",\n};\n'
    yield "gbr", struct.pack(">5I4sI", 30, 2, width, height, 1, b"GIMP", 10) + b"x\x00" + rgb[:, :, 0].tobytes()
    frame = struct.pack("<IHH8x", 16, 0xF1FA, 0)
    yield "fli", struct.pack("<IHHHHHHI", 144, 0xAF11, 1, 8, 8, 8, 0, 5).ljust(128, b"\x00") + frame


if __name__ == "__main__":
    write_seeds(CORPUS)
    print(f"{CORPUS.name}: seeds written")
