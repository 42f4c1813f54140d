"""Dual encoders that transformers saved: a folder, or a name on the hub. Code beside the weights is never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import transformers

from mmalign.dual_model import DualModel, ModelOrigin
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import licence_of, model_folder, source_files
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import read_json, refuse_options, refuse_remote_code
from mmalign_export.sources.transformers_families import FAMILIES, Family
from mmalign_export.sources.transformers_images import image_spec
from mmalign_export.sources.transformers_loading import (
    check_config,
    load_model,
    load_processor,
    load_tokenizer,
    weight_files,
)
from mmalign_export.sources.transformers_original import TransformersOriginal
from mmalign_export.sources.transformers_texts import check_end, fast_tokenizer, text_spec
from mmalign_export.sources.transformers_towers import image_tower, text_tower
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_runtime.spec import Choice, Similarity

_READS = ("orientation", "alpha", "length", "jpeg_oversampling", "licence")


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model in a folder or on the hub. Raises SourceError for what is damaged, incomplete or unknown."""
    refuse_options("transformers", options, _READS)
    folder = model_folder(str(location))
    config = read_json(folder / "config.json")
    refuse_remote_code(folder)
    family = _family(str(location), config)
    check_config(folder)
    weights = weight_files(folder)
    tokenizer, processor = load_tokenizer(folder), load_processor(folder)
    model = load_model(folder, family, weights)
    text_config, vision_config = _part_config(model, "text_config"), _part_config(model, "vision_config")
    text = text_spec(tokenizer, text_config, family, options)
    fast = fitted_tokenizer(fast_tokenizer(tokenizer), int(cast("int", text_config["vocab_size"])))
    check_end(tokenizer, text_config, family)
    dual = DualModel(
        towers={
            "image": image_tower(model, family, image_spec(processor.to_dict(), options), vision_config),
            "text": text_tower(model, family, text, text_config, fast),
        },
        similarity=_similarity(model, family),
        origin=ModelOrigin(
            kind="transformers",
            name=Path(str(location)).name,
            library="transformers",
            versions={"transformers": transformers.__version__},
            weights_licence=options.licence or licence_of(folder),
            files=source_files(folder, weights),
        ),
    )
    original = TransformersOriginal(model, family, tokenizer, processor, text.context_length)
    read_from = Choice(what="weights", value=", ".join(path.name for path in weights), origin="the folder's files")
    return Imported(model=dual, original=original, choices=(read_from, *_choices(dual, family, text_config, options)))


def _family(location: str, config: Mapping[str, object]) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise SourceError(
            f"{location} is a model of type {kind!r}, which is not a known dual encoder of images and texts; "
            f"expected {', '.join(sorted(FAMILIES))}. Give the modules of another one to mmalign_export.import_modules."
        )
    return FAMILIES[kind]


def _part_config(model: transformers.PreTrainedModel, name: str) -> dict[str, object]:
    return cast("dict[str, object]", getattr(model.config, name).to_dict())


def _similarity(model: transformers.PreTrainedModel, family: Family) -> Similarity:
    """Return scale and bias as the library computes its logits."""
    if family.scale == "temperature":
        scale = float(1 / model.get_parameter("temperature").detach().double())
    elif family.scale == "logit_scale":
        scale = float(model.get_parameter("logit_scale").detach().exp())
    else:
        scale = float(torch.tensor(model.config.logit_scale_init_value, dtype=torch.float64).exp())
    parameters = dict(model.named_parameters(recurse=False))
    bias = float(parameters["logit_bias"].detach()) if "logit_bias" in parameters else 0.0
    return Similarity(kind=family.similarity, scale=scale, bias=bias)


def _read_at(family: Family, text_config: Mapping[str, object]) -> str:
    end = text_config.get("eos_token_id")
    if family.read_at == "CLIP's end token" and end == 2:
        return "the highest id, which an eos_token_id of 2 stands for"
    return {
        "CLIP's end token": f"the first end token, id {end}",
        "end token": f"the first end token, id {end}",
        "first token": "its first token",
        "last place": "its last place, padding or not",
        "mean": "the mean of its tokens",
        "pooler": "its encoder's pooler",
    }[family.read_at]


def _choices(
    dual: DualModel, family: Family, text_config: Mapping[str, object], options: SourceOptions
) -> tuple[Choice, ...]:
    image, text = dual.image.spec, dual.text.spec
    size, rounding = f"from {image.resized_shape} to {image.shape}", "sides and offsets rounded down"
    if family.has_patches:
        size = f"at most {image.num_patches} patches of {image.shortest_edge} x {image.shortest_edge}"
        rounding = "sides rounded up to whole patches"
    chosen = {
        ("architecture", family.model): "config.json",
        ("picture", f"{image.resize}, {image.interpolation}, {size}"): (
            f"preprocessor_config.json; {rounding}, as transformers does"
        ),
        ("orientation", image.orientation): f"--orientation {options.orientation}",
        ("transparency", image.alpha if image.alpha == "dropped" else f"{image.alpha} on white"): (
            f"--alpha {options.alpha}; transformers composites where its processor makes RGB"
        ),
        ("JPEG", f"oversampling {image.jpeg_oversampling}"): f"--jpeg-oversampling {options.jpeg_oversampling}",
        (
            "texts",
            f"{text.padding}, up to {text.context_length} tokens",
        ): f"tokenizer and config.json, --length {options.length}",
        ("padding", "kept out by a mask" if family.has_mask else "no mask"): f"the forward of {family.model}",
        ("text is read at", _read_at(family, text_config)): f"the forward of {family.model}, and config.json",
        ("similarity", f"{dual.similarity.kind}, scale {dual.similarity.scale:.4g}, bias {dual.similarity.bias:.4g}"): (
            "the weights" if family.scale != "config" else "config.json, for the weights hold none"
        ),
        ("vectors", "divided by their length"): "every bundle's are",
    }
    return tuple(Choice(what=what, value=value, origin=origin) for (what, value), origin in chosen.items())
