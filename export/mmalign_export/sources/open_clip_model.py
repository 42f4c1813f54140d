"""From open_clip's module, tokenizer and configuration to a DualModel with the pipeline that it is proven against."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import cast

import msgspec
from torch import nn

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, TextModelTower
from mmalign.signature import BATCH, Axis, ModuleInput, image_inputs
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.open_clip_image import image_backbone, image_spec, preprocessing
from mmalign_export.sources.open_clip_original import DualModule, OpenClipOriginal
from mmalign_export.sources.open_clip_place import OpenClipPlace, part
from mmalign_export.sources.open_clip_text import check_end, keeps_vectors_at_real_length, text_backbone
from mmalign_export.sources.open_clip_tokenizer import OpenClipTokenizer, read_tokenizer
from mmalign_export.sources.open_clip_weights import load_module, similarity
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import check_widths
from mmalign_export.sources.trial import tried_width
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import Choice, SourceFile, TextSpec

_LIBRARY = "open_clip_torch"
_VERSIONS = (_LIBRARY, "timm", "torch", "transformers")
# What of a configuration moves no vector: training, and places.
_SILENT = frozenset(
    {"hf_model_name", "hf_model_pretrained", "hf_tokenizer_name", "timm_model_pretrained", "patch_dropout"}
    | {"timm_drop", "timm_drop_path", "output_tokens"}
)


def import_place(place: OpenClipPlace, options: SourceOptions, kind: str) -> Imported:
    """Return the model that lies at a place. Raises SourceError, and FormatLimitError for what a bundle cannot say."""
    module = load_module(place)
    visual = cast("nn.Module", module.visual)
    tokenizer = read_tokenizer(place)
    converted = fitted_tokenizer(tokenizer.converted, _vocabulary(module))
    tokenizer = msgspec.structs.replace(tokenizer, converted=converted)
    check_end(module, tokenizer)
    pixels = preprocessing(place, visual)
    text, length = _text_tower(module, place, tokenizer, options)
    images = image_spec(pixels, options)
    image_vision = image_backbone(visual)
    widths = tried_width("image tower", image_inputs(images), image_vision)
    check_widths(place.name, {"image": widths[0], "text": text.embed_dim})
    image = ImageModelTower(
        backbone=image_vision,
        feature_dim=text.embed_dim,
        embed_dim=text.embed_dim,
        inputs=image_inputs(images),
        architecture=str(part(place.model, "vision_cfg").get("timm_model_name") or place.name),
        definition=_definition(place, "vision_cfg", {}),
        spec=images,
    )
    model = DualModel(
        towers={"image": image, "text": text},
        similarity=similarity(module),
        origin=ModelOrigin(
            kind=kind,
            name=place.name,
            library=_LIBRARY,
            versions={name: version(name) for name in _VERSIONS},
            weights_licence=options.licence or "unknown",
            files={
                path.name: SourceFile(sha256=sha256_of_file(path), size_bytes=path.stat().st_size)
                for path in place.files
            },
        ),
    )
    return Imported(
        model=model,
        original=OpenClipOriginal(cast("DualModule", module), tokenizer, pixels),
        choices=(*place.choices, *_choices(tokenizer), length),
        resized_as_stored=True,
    )


def _vocabulary(module: nn.Module) -> int:
    """Return how many tokens the text tower has vectors for: its first embedding."""
    text = cast("nn.Module", getattr(module, "text", module))
    return next(each.num_embeddings for each in text.modules() if isinstance(each, nn.Embedding))


def _text_tower(
    module: nn.Module, place: OpenClipPlace, tokenizer: OpenClipTokenizer, options: SourceOptions
) -> tuple[TextModelTower, Choice]:
    may_be_real = keeps_vectors_at_real_length(module, tokenizer)
    is_real = may_be_real and options.length == "real"
    length = tokenizer.context_length
    spec = TextSpec(
        cleaning=tokenizer.cleaning,
        context_length=length,
        padding="longest" if is_real else "fixed",
        padding_side=tokenizer.padding_side,  # type: ignore[arg-type]
        truncation_side=tokenizer.truncation_side,  # type: ignore[arg-type]
        pad_token_id=tokenizer.pad_id,
        pad_token=tokenizer.pad_token,
    )
    encoder = getattr(getattr(module, "text", None), "config", None)
    described: dict[str, object] = {} if encoder is None else {"hf_config": _described(encoder.to_diff_dict())}
    backbone = text_backbone(module, tokenizer)
    inputs = (ModuleInput("input_ids", "int64", (BATCH, Axis("length", 2, length) if is_real else length)),)
    (embed_dim,) = tried_width("text tower", inputs, backbone)
    tower = TextModelTower(
        backbone=backbone,
        feature_dim=embed_dim,
        embed_dim=embed_dim,
        inputs=inputs,
        architecture=place.name if encoder is None else str(encoder.model_type),
        definition=_definition(place, "text_cfg", described),
        spec=spec,
        tokenizer=tokenizer.converted,
    )
    value = f"{'the length of the longest text' if is_real else 'always'} (at most {length})"
    reason = "--length" if may_be_real else "padding decides vectors here"
    return tower, Choice(what="text length", value=value, origin=reason)


def _definition(place: OpenClipPlace, name: str, more: dict[str, object]) -> str:
    """Return what decides a tower's vectors beside weights, spec and tokenizer: open_clip's configuration of it."""
    said = {key: value for key, value in part(place.model, name).items() if key not in _SILENT}
    return json.dumps(
        {"open_clip": said, "quick_gelu": bool(place.model.get("quick_gelu")), **more}, sort_keys=True, default=str
    )


def _described(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}


def _choices(tokenizer: OpenClipTokenizer) -> tuple[Choice, ...]:
    kind = type(tokenizer.original).__name__
    return (
        Choice(what="tokenizer", value=kind, origin="text_cfg"),
        Choice(what="text cleaning", value=tokenizer.cleaning, origin=f"open_clip's {kind}"),
    )
