"""Format 1 of bundle.json, as it was written, and what it says in the structs of today. Nothing else knows of it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec.artifacts import (
    AOTINDUCTOR,
    ONNX,
    TORCH_COMPILE,
    Artifact,
    Parity,
    Precision,
    Quantization,
)
from mmalign_runtime.spec.bundle import SPEC_NAME, BundleSpec, Provenance, Sha256, Similarity, Source
from mmalign_runtime.spec.image import IMAGENET_MEAN, IMAGENET_STD, ImageLimits, ImageSpec, Level, Rgb
from mmalign_runtime.spec.text import TextSpec
from mmalign_runtime.spec.towers import ImageInputs, ImageTower, TextInputs, TextTower, Tower

# Format 1 found these by their names alone.
_CLIPPING = "clipping_int8.json"
_FP16_REPORT = "quantization_fp16.json"


class ImageSpec1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format 1's ImageSpec. Format 1.0 had no `jpeg_oversampling`: JPEGs were decoded in full."""

    size: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 224
    resize: Literal["squash", "shortest_edge"] = "squash"
    shortest_edge: Annotated[int, msgspec.Meta(ge=1)] = 256
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    background: tuple[Level, Level, Level] = (255, 255, 255)
    icc_profile: Literal["ignore", "to_srgb"] = "ignore"
    jpeg_oversampling: Annotated[int, msgspec.Meta(ge=0)] = 0
    limits: ImageLimits = ImageLimits()


class TextSpec1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format 1's TextSpec."""

    context_length: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 128
    padding: Literal["longest", "fixed"] = "longest"
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    pad_token: str = "[PAD]"
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000


class ImageTower1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format 1's image side: one model file a precision, and an AOTInductor package perhaps."""

    spec: ImageSpec1
    preprocess: str
    models: dict[Precision, str]
    architecture: str
    aoti: str | None = None
    input_name: str = "pixel_values"
    output_name: str = "image_embeds"


class TextTower1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format 1's text side. Every text tower had a mask."""

    spec: TextSpec1
    tokenizer: str
    models: dict[Precision, str]
    architecture: str
    aoti: str | None = None
    input_names: tuple[str, str] = ("input_ids", "attention_mask")
    output_name: str = "text_embeds"


class Parity1(Parity, frozen=True, kw_only=True):
    """Format 1's parity: of both towers together."""

    artifact: str


class Provenance1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format 1's provenance: a training run."""

    created: str
    run: str
    data: tuple[str, ...]
    opset_version: int
    versions: dict[str, str]
    weights_licence: str = "unknown"


class BundleSpec1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of a bundle.json of format 1."""

    format_version: str
    space_id: str
    embed_dim: Annotated[int, msgspec.Meta(ge=1)]
    logit_scale: float
    image: ImageTower1
    text: TextTower1
    parity: tuple[Parity1, ...]
    golden: str
    provenance: Provenance1
    files: dict[str, Sha256]
    quantization: str | None = None
    goldens: dict[Precision, str] = {}
    seal: str = ""


def from_version1(old: BundleSpec1) -> BundleSpec:
    """Return what a bundle of format 1 says, in the structs of today. Its space id and variant ids stay.

    Raises BundleFormatError for a report or golden cases that are not among its files, and for what format 1 allowed
    and format 2 does not, an empty name of an input for example: what is read can always be written again.
    """
    for name in filter(None, (old.quantization, *old.goldens.values())):
        if name not in old.files:
            raise BundleFormatError(f"{SPEC_NAME} names {name!r}, which `files` does not list. Export it again.")
    try:
        return msgspec.convert(msgspec.to_builtins(_today(old)), BundleSpec)
    except msgspec.ValidationError as error:
        raise BundleFormatError(f"{SPEC_NAME}: {error}. Export the bundle again with this version.") from error


def _today(old: BundleSpec1) -> BundleSpec:
    made = old.provenance
    return BundleSpec(
        space_id=old.space_id,
        embed_dim=old.embed_dim,
        similarity=Similarity(kind="softmax", scale=old.logit_scale),
        towers=_towers(old),
        artifacts=tuple(_artifacts(old)),
        golden=old.golden,
        provenance=Provenance(
            created=made.created,
            source=Source(kind="run", name=made.run, library="mmalign", version=made.versions.get("mmalign", "")),
            data=made.data,
            opset_version=made.opset_version,
            versions=made.versions,
            weights_licence=made.weights_licence,
        ),
        files=old.files,
        seal=old.seal,
    )


def _towers(old: BundleSpec1) -> dict[str, Tower]:
    image, text = old.image, old.text
    ids_name, mask_name = text.input_names
    return {
        "image": ImageTower(
            spec=msgspec.convert(msgspec.to_builtins(image.spec), ImageSpec),
            preprocess=image.preprocess,
            architecture=image.architecture,
            inputs=ImageInputs(pixel_values=image.input_name),
            output=image.output_name,
        ),
        "text": TextTower(
            spec=msgspec.convert(msgspec.to_builtins(text.spec), TextSpec),
            tokenizer=text.tokenizer,
            architecture=text.architecture,
            inputs=TextInputs(input_ids=ids_name, attention_mask=mask_name),
            output=text.output_name,
        ),
    }


def _artifacts(old: BundleSpec1) -> list[Artifact]:
    towers = (("image", old.image), ("text", old.text))
    models = [
        Artifact(
            tower=name,
            engine=ONNX,
            precision=precision,
            file=file,
            parity=_parity(old, f"onnx-{precision}"),
            golden=old.goldens.get(precision),
            quantization=_quantization(old, precision),
        )
        for name, tower in towers
        for precision, file in tower.models.items()
    ]
    packages = [
        Artifact(tower=name, engine=AOTINDUCTOR, file=tower.aoti, parity=_parity(old, "aoti-fp32"))
        for name, tower in towers
        if tower.aoti is not None
    ]
    # Held to PyTorch, and no file kept of it.
    compiled = _parity(old, "compile-fp32")
    in_process = [Artifact(tower=name, engine=TORCH_COMPILE, parity=compiled) for name, _ in towers if compiled]
    return [*models, *packages, *in_process]


def _quantization(old: BundleSpec1, precision: Precision) -> Quantization | None:
    if precision == "int8" and old.quantization is not None:
        return Quantization(report=old.quantization, clipping=_CLIPPING if _CLIPPING in old.files else None)
    if precision == "fp16" and _FP16_REPORT in old.files:
        return Quantization(report=_FP16_REPORT)
    return None


def _parity(old: BundleSpec1, artifact: str) -> Parity | None:
    for entry in old.parity:
        if entry.artifact == artifact:
            fields = msgspec.structs.asdict(entry)
            del fields["artifact"]
            return Parity(**fields)
    return None
