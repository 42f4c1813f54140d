"""Dual encoders that transformers saved: a folder, or a name on the hub. Code beside the weights is never run.

The model and what makes its inputs are held to its configuration: nothing missing, nothing over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from mmalign._compat import quiet_loading
from mmalign.dual_model import DualModel, ModelOrigin
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import licence_of, model_folder, source_files
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import (
    LIBRARY_ERRORS,
    check_finite,
    check_loaded,
    first_sentence,
    read_json,
    refuse_options,
    refuse_remote_code,
)
from mmalign_export.sources.transformers_families import FAMILIES, Family
from mmalign_export.sources.transformers_images import image_spec
from mmalign_export.sources.transformers_original import TransformersOriginal
from mmalign_export.sources.transformers_texts import check_end, fast_tokenizer, text_spec
from mmalign_export.sources.transformers_towers import image_tower, text_tower
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_export.sources.weight_files import check_precision, dtypes_of, saved_weights
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Choice, Similarity

_READS = ("orientation", "alpha", "length", "jpeg_oversampling", "licence")
# Fields of another type, or that do not go together, are an error of the hub's library.
LOADING_ERRORS = (*LIBRARY_ERRORS, StrictDataclassError)
# No code is run, and nothing is fetched beside what is in the folder.
_CLOSED = {"trust_remote_code": False, "local_files_only": True}
# Without one of these, transformers makes a tokenizer of no words, and says nothing.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
# In transformers' own order of preference.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model in a folder or on the hub. Raises SourceError for what is damaged, incomplete or unknown."""
    refuse_options("transformers", options, _READS)
    folder = model_folder(str(location))
    config = read_json(folder / "config.json")
    refuse_remote_code(folder)
    family = _family(str(location), config)
    _load(folder, "config.json", transformers.AutoConfig.from_pretrained)  # for its errors
    weights = weight_files(folder)
    check_tokenizer_files(folder)
    found = _load(folder, "tokenizer", transformers.AutoTokenizer.from_pretrained)
    tokenizer, processor = cast("transformers.PreTrainedTokenizerBase", found), load_processor(folder)
    model = load_model(folder, family, weights)
    text_config = cast("dict[str, object]", model.config.text_config.to_dict())
    vision_config = cast("dict[str, object]", model.config.vision_config.to_dict())
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


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that transformers reads, each of them whole and without code. Raises SourceError."""
    return saved_weights(folder, _WEIGHTS)


def load_model(folder: Path, family: Family, weights: Iterable[Path]) -> transformers.PreTrainedModel:
    """Load the weights as float32, held to the configuration: nothing missing, nothing over. Raises SourceError."""
    dtypes = dtypes_of(weights)
    load = cast("Callable[..., object]", getattr(transformers, family.model).from_pretrained)
    try:
        with quiet_loading():
            model, told = cast(
                "tuple[transformers.PreTrainedModel, dict[str, list[object]]]",
                load(folder, dtype="float32", output_loading_info=True, ignore_mismatched_sizes=True, **_CLOSED),
            )
    except LOADING_ERRORS as error:
        raise SourceError(
            f"{folder}: transformers cannot load the weights: {first_sentence(error)}. They are damaged, are not those "
            "of its config.json, or hold code. Fetch the model again, or save it as safetensors."
        ) from error
    check_loaded(
        str(folder),
        missing=map(str, told["missing_keys"]),
        surplus=map(str, told["unexpected_keys"]),
        mismatched=(" ".join(map(str, cast("tuple[object, ...]", each))) for each in told["mismatched_keys"]),
    )
    check_precision(str(folder), dtypes, model.state_dict())
    check_finite(str(folder), model.state_dict())
    model.train(False)
    return model


def check_tokenizer_files(folder: Path) -> None:
    """Raise SourceError for a folder without a tokenizer, and where a library that reads it is not there."""
    if not any(found for pattern in _VOCABULARIES for found in folder.glob(pattern)):
        raise SourceError(f"{folder} holds no tokenizer ({', '.join(_VOCABULARIES)}). Fetch the model whole.")
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and find_spec("sentencepiece") is None:
        raise MissingDependencyError(
            f"the tokenizer in {folder} is a sentencepiece model, and sentencepiece is not installed. Run "
            "`pip install 'mmalign-export[sentencepiece]'`."
        )


def load_processor(folder: Path) -> transformers.BaseImageProcessor:
    """Return the image processor of a folder. Raises SourceError."""
    found = _load(folder, "image processor", transformers.AutoImageProcessor.from_pretrained)
    return cast("transformers.BaseImageProcessor", found)


def _load(folder: Path, what: str, load: Callable[..., object]) -> object:
    try:
        with quiet_loading():
            return load(folder, **_CLOSED)
    except Exception as error:  # there is no common class, and tokenizers raises Exception itself
        raise SourceError(
            f"{folder}: its {what} cannot be read: {first_sentence(error)}. Fetch the model whole: weights alone do "
            "not say what their inputs are."
        ) from error
