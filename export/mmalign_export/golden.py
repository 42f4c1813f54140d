"""Makes the golden cases: real files in every shape and colour mode a service meets, texts likewise, and what eager
PyTorch answers to each, stage by stage.

The format matrix is cut from one photograph that ships with this package; the run's own pairs are added as they are.
The colour profile of phones' photographs, Display P3, is made here as an ICC file, since no library writes one: a
matrix and one curve are all there is to it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Container, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.data import Pair
from mmalign.dual_model import DualModel, ImageModelTower, TextModelTower, Vectors
from mmalign_runtime.bundle.golden import Golden, ImageCase, TextCase, pixels_sha256, sample_pixel_values, sample_pixels
from mmalign_runtime.image import decode_image
from mmalign_runtime.image.formats import HEAD_BYTES, ImageFormat, sniff_format
from mmalign_runtime.image_suffixes import SUFFIXES_OF_FORMAT
from mmalign_runtime.spec import Modality

Case = TypeVar("Case", ImageCase, TextCase)

_PHOTO = "photo/grace_hopper.jpg"
_EXIF_ORIENTATION = 0x0112
_LARGE = (5496, 3672)  # 20 megapixels, a camera's photograph
# Primaries of Display P3 adapted to the D50 white of ICC profiles, as XYZ (Apple's published profile, columns r, g, b).
_PROFILE_COLUMNS = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
    b"wtpt": (0.96420, 1.00000, 0.82491),
}
# sRGB's curve as ICC's parametric type 3: (a * x + b) ** g above d, c * x below.
_PROFILE_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_PROFILE_HEADER_BYTES = 128
_PROFILE_NAME = b"Display P3"


class GoldenFile(msgspec.Struct, frozen=True):
    """One image file of the golden set."""

    name: str
    suffix: str
    data: bytes


def golden_files(pairs: Sequence[Pair]) -> tuple[GoldenFile, ...]:
    """Return the format matrix and the images of some of the run's own pairs, as they are."""
    return (*_format_matrix(), *_own_files(pairs))


def golden_texts(pairs: Sequence[Pair], context_length: int) -> tuple[tuple[str, str], ...]:
    """Return (name, text) of the golden texts: the edges, several scripts, and captions of the run's own."""
    own = [(f"own caption {number}", pair.captions[0]) for number, pair in enumerate(pairs, start=1)]
    return (
        ("empty", ""),
        ("one word", "dog"),
        ("caption", "a photo of a dog running on the beach"),
        ("longer than the context", "the quick brown fox jumps over the lazy dog " * context_length),
        ("accents", "Café déjà-vu, naïve façade, Ærøskøbing, Zürich"),
        ("Chinese", "一只在雨中奔跑的狗"),
        ("emoji", "🐶❤️ 👨‍👩‍👧 🇸🇪 good dog!"),
        ("whitespace", "  two\tspaces \n and a line break  "),
        ("punctuation", "#1 best-seller: 50% off (today only!) — $9.99"),
        ("capitals and digits", "HTTP 404 NOT FOUND 2026-11-23"),
        ("Arabic", "كلب يجري على الشاطئ"),
        *own,
    )


def make_golden(
    model: DualModel, image_files: Sequence[GoldenFile], texts: Sequence[tuple[str, str]], folder: Path
) -> Golden:
    """Write the image files under folder/golden and return all cases with eager PyTorch's answers."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    prepared = [_image_case(model.image, file, folder) for file in image_files]
    vectors = model.image.run_each([{model.image.input_names[0]: pixel_values} for _, pixel_values in prepared])
    golden = Golden(
        images=tuple(case for case, _ in prepared),
        texts=tuple(_text_case(model.text, name, text) for name, text in texts),
    )
    return with_vectors(golden, {"image": vectors})


def cases_of(golden: Golden) -> dict[Modality, Sequence[ImageCase | TextCase]]:
    """Return the image cases and the text cases."""
    return {"image": golden.images, "text": golden.texts}


def with_vectors(
    golden: Golden, vectors: Mapping[Modality, Vectors], kept: Mapping[Modality, Container[str]] = MappingProxyType({})
) -> Golden:
    """Return the cases with other vectors of the towers that have some, but for those that are `kept`, by name."""

    def replaced(tower: Modality, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        if tower not in vectors:
            return cases
        return tuple(
            case if case.name in kept.get(tower, ()) else msgspec.structs.replace(case, embedding=shortest(vector))
            for case, vector in zip(cases, vectors[tower], strict=True)
        )

    return Golden(images=replaced("image", golden.images), texts=replaced("text", golden.texts))


def _image_case(tower: ImageModelTower, file: GoldenFile, folder: Path) -> tuple[ImageCase, NDArray[np.float32]]:
    """Write a file, and return its case, without the vector, and its pixel_values (1, 3, H, W)."""
    name = f"golden/{file.name.replace(' ', '_')}{file.suffix}"
    (folder / name).write_bytes(file.data)
    pixels = decode_image(file.data, tower.spec)
    pixel_values = tower.preprocess(pixels)
    case = ImageCase(
        name=file.name,
        file=name,
        height=pixels.shape[0],
        width=pixels.shape[1],
        pixels_sha256=pixels_sha256(pixels),
        pixels_sample=tuple(sample_pixels(pixels).tolist()),
        pixel_values_sample=shortest(sample_pixel_values(pixel_values)),
        embedding=(),
    )
    return case, pixel_values


def _text_case(tower: TextModelTower, name: str, text: str) -> TextCase:
    arrays = tower.prepare([text])
    kept = arrays["input_ids"][0][arrays["attention_mask"][0] == 1]
    return TextCase(name=name, text=text, input_ids=tuple(kept.tolist()), embedding=shortest(tower.run(arrays)[0]))


def shortest(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the numbers with the fewest digits that read back as the same float32: half the file's size."""
    return tuple(float(str(value)) for value in values)


def golden_photo() -> Image.Image:
    """Return the photograph that the golden images are cut from: 512 x 606, RGB."""
    return Image.open(io.BytesIO(files(__package__).joinpath(_PHOTO).read_bytes())).convert("RGB")


def _format_matrix() -> list[GoldenFile]:
    photo = golden_photo()
    landscape, portrait = photo.crop((0, 40, 480, 360)), photo.crop((120, 20, 390, 500))
    small = landscape.resize((240, 160))  # for what is stored without loss
    levels = np.asarray(small.convert("L"), np.uint16)
    animation = {"save_all": True, "append_images": [portrait.resize((120, 80))], "duration": 100}
    images: list[tuple[str, Image.Image, ImageFormat, dict[str, object]]] = [
        ("landscape 3:2", landscape, "JPEG", {}),
        ("portrait 9:16", portrait, "JPEG", {}),
        ("odd size", photo.resize((301, 199)), "JPEG", {"subsampling": 0}),
        ("very large", photo.resize(_LARGE), "JPEG", {"quality": 60}),
        # Just above and just below four times 448, which is twice the usual target: read at 1/4 and at 1/2.
        ("large portrait", photo.resize((1793, 2119)), "JPEG", {"quality": 60, "exif": _exif(6)}),
        ("large and odd", photo.resize((2119, 1791)), "JPEG", {"quality": 60, "progressive": True}),
        ("tiny", photo.resize((3, 2)), "PNG", {}),
        ("one pixel", photo.resize((1, 1)), "PNG", {}),
        ("target size", photo.resize((224, 224)), "PNG", {}),
        ("grey", landscape.convert("L"), "JPEG", {}),
        ("one bit", small.convert("1"), "PNG", {}),
        ("RGBA", _with_alpha(small), "PNG", {}),
        ("LA", _with_alpha(small).convert("LA"), "PNG", {}),
        ("palette", small.quantize(64), "PNG", {}),
        ("palette with transparency", small.quantize(64), "PNG", {"transparency": 7}),
        ("16-bit", Image.fromarray(levels * 257 + 128), "PNG", {}),
        ("float TIFF", Image.fromarray(levels.astype(np.float32) / 255), "TIFF", {}),
        ("wide gamut", small, "PNG", {"icc_profile": display_p3_profile()}),
        ("CMYK", landscape.convert("CMYK"), "JPEG", {}),
        ("progressive", landscape, "JPEG", {"progressive": True}),
        ("WebP", portrait, "WEBP", {"quality": 80}),
        ("WebP with alpha", _with_alpha(small.rotate(90, expand=True)), "WEBP", {"lossless": True}),
        ("animated GIF", landscape.resize((120, 80)), "GIF", animation),
        ("animated WebP", landscape.resize((120, 80)), "WEBP", animation | {"lossless": True}),
    ]
    images += [(f"EXIF orientation {value}", small, "JPEG", {"exif": _exif(value)}) for value in range(1, 9)]
    return [_encode(name.replace(":", "x"), image, kind, options) for name, image, kind, options in images]


def _own_files(pairs: Sequence[Pair]) -> list[GoldenFile]:
    found = []
    for number, pair in enumerate(pairs, start=1):
        data = pair.image if isinstance(pair.image, bytes) else pair.image.read_bytes()
        found.append(GoldenFile(f"own image {number}", _suffix(data), data))
    return found


def _suffix(data: bytes) -> str:
    """Return what a file of these bytes is called: the runtime goes by the bytes, people by the name."""
    found = sniff_format(data[:HEAD_BYTES])
    return ".bin" if found is None else SUFFIXES_OF_FORMAT[found][0]


def _encode(name: str, image: Image.Image, kind: ImageFormat, options: dict[str, object]) -> GoldenFile:
    buffer = io.BytesIO()
    save: Callable[..., None] = image.save
    save(buffer, kind, **options)
    return GoldenFile(name, SUFFIXES_OF_FORMAT[kind][0], buffer.getvalue())


def _with_alpha(image: Image.Image) -> Image.Image:
    """Give an image an alpha channel that rises from left to right, so that compositing matters everywhere."""
    width, height = image.size
    alpha = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    with_alpha = image.convert("RGBA")
    with_alpha.putalpha(Image.fromarray(alpha))
    return with_alpha


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    return exif


def display_p3_profile() -> bytes:
    """Return a version 4 display profile, the same bytes each time."""
    text = _PROFILE_NAME.decode().encode("utf-16-be")
    words = b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    curve = b"para" + struct.pack(">4xHH", 3, 0) + b"".join(map(_fixed, _PROFILE_CURVE))
    data = {tag: b"XYZ " + bytes(4) + b"".join(map(_fixed, values)) for tag, values in _PROFILE_COLUMNS.items()}
    data |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"desc": words, b"cprt": words}
    start = _PROFILE_HEADER_BYTES + 4 + 12 * len(data)
    table, body = struct.pack(">I", len(data)), b""
    for tag, content in data.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += padded
    return _profile_header(start + len(body)) + table + body


def _profile_header(size: int) -> bytes:
    white = b"".join(map(_fixed, _PROFILE_COLUMNS[b"wtpt"]))
    dated = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4xI4s4s4s", size, 0x04200000, b"mntr", b"RGB ", b"XYZ ") + dated + b"acsp"
    return (head + bytes(28) + white).ljust(_PROFILE_HEADER_BYTES, b"\0")


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))
