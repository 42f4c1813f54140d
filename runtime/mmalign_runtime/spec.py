"""What a bundle is: the typed contents of bundle.json, and how they are read and written.

Everything that decides what a vector is stands here: which pixels reach the image tower, which token ids reach the text
tower, which file is which precision. Nothing here opens an ONNX file or knows a provider.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal, cast

import msgspec

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.strict_json import JsonError, read_json

FORMAT_MAJOR = 1
FORMAT_VERSION = "1.1"
SPEC_NAME = "bundle.json"

Precision = Literal["fp32", "fp16", "int8"]
Modality = Literal["image", "text"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Rgb = tuple[float, float, float]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]

# ImageNet statistics (Deng et al. 2009, as published with torchvision's ResNet-50 weights), of values in 0..1.
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)


# The cosine to PyTorch's vectors that every golden case keeps in fewer bits, where quantizing was told nothing else.
LEAST_GOLDEN_COSINE = 0.97


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image may cost, checked before any pixel is decoded. Limits refuse images; they move no vector.

    `max_bytes` is of the file as stored, `max_pixels` and `max_side` of the picture its header promises, and
    `max_aspect_ratio` is the longer side over the shorter one.
    """

    max_pixels: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 268_435_456
    max_side: Annotated[int, msgspec.Meta(ge=1)] = 65_535
    max_aspect_ratio: Annotated[float, msgspec.Meta(ge=1)] = 200.0


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way from a file's pixels to `pixel_values` (B, 3, size, size) float32.

    `resize` is "squash" (both sides to `size`) or "shortest_edge" (the shorter side to `shortest_edge`, then a centred
    crop of `size`). `mean` and `std` are of values in 0..1. Alpha is composited on `background` (R, G, B) in 0..255
    before any resize. `icc_profile` "ignore" takes the stored numbers as they are, as torchvision and transformers do;
    "to_srgb" converts pictures that carry a colour profile.

    A JPEG is decoded at the smallest DCT scale (1/8, 1/4, 1/2 or 1) whose shorter side is still at least
    `jpeg_oversampling` times the side that it is resized to (`size` or `shortest_edge`); 0 decodes in full.
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 224
    resize: Literal["squash", "shortest_edge"] = "squash"
    shortest_edge: Annotated[int, msgspec.Meta(ge=1)] = 256
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    background: tuple[Level, Level, Level] = (255, 255, 255)
    icc_profile: Literal["ignore", "to_srgb"] = "ignore"
    jpeg_oversampling: Annotated[int, msgspec.Meta(ge=0)] = 2
    limits: ImageLimits = ImageLimits()


class TextSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way from a text to `input_ids` and `attention_mask` (B, L) int64.

    Truncated to `context_length` tokens, the closing token kept; padded with `pad_token_id` to the longest of the
    batch, or always to `context_length` when `padding` is "fixed". A text of more than `max_characters` is refused
    before it is tokenized: the limit moves no vector.
    """

    context_length: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 128
    padding: Literal["longest", "fixed"] = "longest"
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    pad_token: str = "[PAD]"
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000


class ImageTowerFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image side of a bundle: its spec, its preprocessing graph and one model file a precision.

    `aoti` is an AOTInductor package for callers who have torch, built for the machine that exported: mmalign's engine
    "aotinductor" runs it.
    """

    spec: ImageSpec
    preprocess: str
    models: dict[Precision, str]
    architecture: str
    aoti: str | None = None
    input_name: str = "pixel_values"
    output_name: str = "image_embeds"


class TextTowerFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The text side of a bundle: its spec, its tokenizer and one model file a precision."""

    spec: TextSpec
    tokenizer: str
    models: dict[Precision, str]
    architecture: str
    aoti: str | None = None
    input_names: tuple[str, str] = ("input_ids", "attention_mask")
    output_name: str = "text_embeds"


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far one artifact's vectors were from eager PyTorch's when the bundle was made, over all golden cases.

    `min_cosine` and `max_abs_difference` were measured; the two bounds are what `verify` holds the artifact to, against
    PyTorch's vectors, or against its own where it has golden cases of its own. Such an artifact keeps at least
    `least_cosine` to PyTorch's in every case besides.
    """

    artifact: str
    num_cases: int
    min_cosine: float
    max_abs_difference: float
    cosine_bound: float
    abs_bound: float
    least_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] = LEAST_GOLDEN_COSINE


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a bundle comes from: versions, the run's name and data, the opset, and when it was made (ISO 8601, UTC)."""

    created: str
    run: str
    data: tuple[str, ...]
    opset_version: int
    versions: dict[str, str]
    weights_licence: str = "unknown"


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of bundle.json. `files` maps every other file (path from the bundle's folder) to its sha256.

    `quantization` names the report of how the int8 files were chosen, where there are any. `goldens` names golden cases
    with the vectors that a precision's own files gave: rounding moves a vector further than another machine may.
    """

    format_version: str
    space_id: str
    embed_dim: Annotated[int, msgspec.Meta(ge=1)]
    logit_scale: float
    image: ImageTowerFiles
    text: TextTowerFiles
    parity: tuple[Parity, ...]
    golden: str
    provenance: Provenance
    files: dict[str, Sha256]
    quantization: str | None = None
    goldens: dict[Precision, str] = {}
    seal: str = ""

    def variant_id(self, precision: Precision) -> str:
        """Return the id of one precision's files: vectors of two variants share a space, not their last digits."""
        names = sorted({tower.models[precision] for tower in (self.image, self.text) if precision in tower.models})
        digest = hashlib.sha256("".join(self.files[name] for name in names).encode()).hexdigest()
        return f"{precision}-{digest[:12]}"

    def precisions(self) -> tuple[Precision, ...]:
        """Return the precisions that both towers offer, most exact first."""
        order: tuple[Precision, ...] = ("fp32", "fp16", "int8")
        return tuple(p for p in order if p in self.image.models and p in self.text.models)


class _FormatOnly(msgspec.Struct, frozen=True):
    format_version: str


def seal_of(contents: dict[str, object]) -> str:
    """Return the sha256 of bundle.json's contents without its `seal`: it guards bundle.json, which hashes the rest.

    Taken over what the file says, not over the struct, so that a later 1.x with more fields still fits older bundles.
    """
    rest = {key: value for key, value in contents.items() if key != "seal"}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def encode_spec(spec: BundleSpec) -> bytes:
    """Return the bytes of bundle.json, sealed."""
    contents: dict[str, object] = msgspec.to_builtins(spec)
    contents["seal"] = seal_of(contents)
    return msgspec.json.format(msgspec.json.encode(contents, order="sorted"), indent=2) + b"\n"


def decode_spec(raw: bytes) -> BundleSpec:
    """Read the bytes of bundle.json.

    Raises BundleFormatError, naming the field, when the bytes are no JSON, the major version is not ours, a field is
    missing, unknown or of a wrong type, or the seal does not fit the contents.
    """
    try:
        found = read_json(raw, _FormatOnly).format_version
    except JsonError as error:
        raise BundleFormatError(f"{SPEC_NAME} cannot be read: {error}. Export the bundle again.") from error
    _check_version(found)
    try:
        spec, contents = read_json(raw, BundleSpec), read_json(raw, dict[str, object])
    except JsonError as error:
        raise BundleFormatError(f"{SPEC_NAME}: {error}. Export the bundle again with this version.") from error
    if spec.seal != seal_of(contents):
        raise BundleFormatError(
            f"{SPEC_NAME} was edited: its seal does not fit its contents. Restore it, or export the bundle again."
        )
    _check_listed(spec)
    return _as_it_was_made(spec, contents)


def _as_it_was_made(spec: BundleSpec, contents: dict[str, object]) -> BundleSpec:
    """Give fields that an older 1.x does not have the value that its vectors were made with."""
    image = cast("dict[str, dict[str, object]]", contents["image"])
    if "jpeg_oversampling" in image["spec"]:
        return spec
    # Format 1.0 had no such field: JPEGs were decoded in full.
    pixels = msgspec.structs.replace(spec.image.spec, jpeg_oversampling=0)
    return msgspec.structs.replace(spec, image=msgspec.structs.replace(spec.image, spec=pixels))


def _check_listed(spec: BundleSpec) -> None:
    image, text = spec.image, spec.text
    named = {"golden": spec.golden, "image.preprocess": image.preprocess, "text.tokenizer": text.tokenizer}
    named |= {f"image.models.{precision}": name for precision, name in image.models.items()}
    named |= {f"text.models.{precision}": name for precision, name in text.models.items()}
    named |= {"quantization": spec.quantization} if spec.quantization else {}
    named |= {f"goldens.{precision}": name for precision, name in spec.goldens.items()}
    named |= {f"{tower}.aoti": files.aoti for tower, files in (("image", image), ("text", text)) if files.aoti}
    for field, name in named.items():
        if name not in spec.files:
            raise BundleFormatError(f"{SPEC_NAME}: {field} is {name!r}, which `files` does not list. Export it again.")


def _check_version(found: str) -> None:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", found, re.ASCII)
    if match is None or int(match[1]) != FORMAT_MAJOR:
        raise BundleFormatError(
            f"{SPEC_NAME}: format_version is {found!r}, this version reads {FORMAT_MAJOR}.x. "
            "Install the mmalign-runtime that made it, or export the bundle again."
        )
