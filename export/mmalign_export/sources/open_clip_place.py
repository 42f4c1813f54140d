"""Where a model of open_clip lies: its configuration, its weights, and the place of its tokenizer.

A folder ("local-dir:"), a name on the hub ("hf-hub:"), or a file of weights with the name of its architecture. Read
here and not by open_clip's factory, which draws at random what a place lacks: the module has exactly the weights of the
file, nothing drawn at random, resized or dropped.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import msgspec
import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained_from_hf, get_pretrained_cfg, list_pretrained_tags_by_model
from torch import Tensor, nn

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.refusals import (
    LIBRARY_ERRORS,
    check_finite,
    check_loaded,
    check_weight_file,
    first_sentence,
    read_json,
    refuse_remote_code,
)
from mmalign_export.sources.state_dicts import read_state
from mmalign_export.sources.weight_files import check_precision, check_same
from mmalign_runtime.spec import Choice, Similarity

Config = dict[str, object]

CONFIG = "open_clip_config.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
# In open_clip's own order of preference.
_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
_GELU_SUFFIX = "-quickgelu"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# Kept in files that older releases of transformers wrote; what they hold is computed.
_COMPUTED = "text.transformer.embeddings.position_ids"


class OpenClipPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: `model` and `preprocessing` as open_clip writes them, and the files that were read.

    `tokenizer` is where a tokenizer of transformers is read from, where the model has one: a folder, or a name.
    """

    name: str
    model: Config
    preprocessing: Config
    weights: Path
    files: tuple[Path, ...]
    tokenizer: str
    choices: tuple[Choice, ...] = ()


def find_place(location: str, options: SourceOptions) -> OpenClipPlace:
    """Return what lies at a folder, a name on the hub, or a file of weights. Raises SourceError."""
    if location.startswith(HUB):
        return _on_hub(location.removeprefix(HUB))
    path = Path(location.removeprefix(LOCAL))
    if path.is_dir():
        return _in_folder(path, _weights_in(path), _known_name(read_json(path / CONFIG)), str(path))
    if path.is_file():
        return _of_file(path, options)
    raise SourceError(
        f"{location} is neither a folder with {CONFIG} nor a file of weights. Give `local-dir:FOLDER`, "
        f"`{HUB}OWNER/NAME`, or the file of weights with --model NAME, NAME one of open_clip.list_models()."
    )


def part(config: Config, name: str) -> Config:
    """Return a part of a configuration that is an object. Raises SourceError."""
    found = config.get(name)
    if not isinstance(found, dict):
        raise SourceError(
            f"open_clip's configuration has {name}={found!r}; expected an object. A dual encoder has a vision_cfg and "
            "a text_cfg: fetch the model whole."
        )
    return cast("Config", found)


def _in_folder(folder: Path, weights: Path, name: str, tokenizer: str) -> OpenClipPlace:
    refuse_remote_code(folder)
    config = read_json(folder / CONFIG)
    model = part(config, "model_cfg")
    preprocessing = part(config, "preprocess_cfg") if "preprocess_cfg" in config else {}
    for each in ("vision_cfg", "text_cfg"):
        part(model, each)
    stated = tuple(Choice(what=key, value=str(preprocessing[key]), origin=CONFIG) for key in sorted(preprocessing))
    return OpenClipPlace(
        name=name,
        model=model,
        preprocessing=preprocessing,
        weights=weights,
        files=(folder / CONFIG, weights),
        tokenizer=tokenizer,
        choices=(Choice(what="architecture", value=name, origin=CONFIG), *stated),
    )


def _on_hub(name: str) -> OpenClipPlace:
    try:
        folder = Path(download_pretrained_from_hf(name, filename=CONFIG)).parent
        weights = Path(download_pretrained_from_hf(name))
    except (OSError, ValueError, RuntimeError) as error:  # huggingface_hub's errors are of these
        raise SourceError(
            f"{HUB}{name} cannot be fetched: {first_sentence(error)}. Check the name and the network, or give a folder "
            "that was fetched before."
        ) from error
    text = part(part(read_json(folder / CONFIG), "model_cfg"), "text_cfg")
    return _in_folder(folder, weights, name, str(text.get("hf_tokenizer_name") or ""))


def _weights_in(folder: Path) -> Path:
    known = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if known:
        check_weight_file(known[0])
        for other in known[1:]:
            check_same(known[:1], [other])
        return known[0]
    others = sorted(path for suffix in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
    if len(others) != 1:
        names = ", ".join(path.name for path in others) or "none"
        raise SourceError(
            f"{folder} holds these weights: {names}; expected one of {', '.join(_WEIGHTS[:3])}, or one file. open_clip "
            "would draw the model at random, or take the first. Fetch the model whole, or keep one file."
        )
    return others[0]


def _known_name(config: Config) -> str:
    """Return the name that open_clip has for a configuration, so that no bundle is named after a folder."""
    model = config.get("model_cfg")
    return next((name for name in open_clip.list_models() if open_clip.get_model_config(name) == model), "open_clip")


def _of_file(weights: Path, options: SourceOptions) -> OpenClipPlace:
    name, _, tag = options.model.removeprefix("open_clip:").replace("/", "-").partition(":")
    if name not in open_clip.list_models():
        seen = f"--model {name}" if name else "no --model"
        raise SourceError(
            f"{weights} holds weights alone, which do not say how many heads there are or which activation: {seen} was "
            "given; expected one of open_clip.list_models(), such as ViT-B-32-quickgelu."
        )
    model = cast("Config", copy.deepcopy(open_clip.get_model_config(name)))
    activation = _activation(name, model, options)
    preprocessing, origin = _preprocessing(name, tag)
    beside = any((weights.parent / each).is_file() for each in _TOKENIZER_FILES)
    named = str(part(model, "text_cfg").get("hf_tokenizer_name") or "")
    stated = tuple(Choice(what=key, value=str(preprocessing[key]), origin=origin) for key in sorted(preprocessing))
    return OpenClipPlace(
        name=name,
        model=model,
        preprocessing=preprocessing,
        weights=weights,
        files=(weights,),
        tokenizer=str(weights.parent) if beside else named,
        choices=(Choice(what="architecture", value=name, origin="--model"), activation, *stated),
    )


def _activation(name: str, model: Config, options: SourceOptions) -> Choice:
    """Set the activation that was asked for. Raises SourceError where a name leaves it open, or says another."""
    has_quick = bool(model.get("quick_gelu"))
    is_open = not has_quick and f"{name}{_GELU_SUFFIX}" in open_clip.list_models()
    if is_open and not options.activation:
        raise SourceError(
            f"weights of {name} were trained with GELU (LAION) and with QuickGELU (OpenAI, MetaCLIP, DFN), and do not "
            f"say which. Add --activation gelu or --activation quick_gelu (the same as --model {name}{_GELU_SUFFIX})."
        )
    if has_quick and options.activation == "gelu":
        raise SourceError(f"--model {name} is with QuickGELU, and --activation gelu was given. Drop one of them.")
    if options.activation == "quick_gelu":
        model["quick_gelu"] = True
    value = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return Choice(what="activation", value=value, origin="--activation" if options.activation else "--model")


def _preprocessing(name: str, tag: str) -> tuple[Config, str]:
    """Return what open_clip's table of weights says of the pictures, and where. Raises SourceError where it differs."""
    tags = list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        raise SourceError(f"open_clip has no weights {tag!r} of {name}; expected one of {', '.join(tags)}, or none.")
    table = {each: get_pretrained_cfg(name, each) for each in ([tag] if tag else tags)}
    stated = {each: {key: config[key] for key in _PREPROCESSING if config.get(key)} for each, config in table.items()}
    distinct = [one for at, one in enumerate(stated.values()) if one not in list(stated.values())[:at]]
    if len(distinct) > 1:
        groups = "; ".join(f"{one}: {', '.join(tag for tag in stated if stated[tag] == one)}" for one in distinct)
        raise SourceError(
            f"weights of {name} were trained on pictures of different preprocessing, and do not say on which: "
            f"{groups}. Name one of them: --model {name}:TAG."
        )
    if not distinct:
        return {}, "open_clip's defaults"
    return distinct[0], f"open_clip's table of weights of {name}"


def load_module(place: OpenClipPlace) -> nn.Module:
    """Return open_clip's own model with its place's weights, float32, in evaluation mode. Raises SourceError."""
    module = _build(place)
    state = _renamed(module, read_state(place.weights))
    expected = module.state_dict()
    shared = state.keys() & expected.keys()
    check_loaded(
        place.weights.name,
        missing=expected.keys() - shared,
        surplus=state.keys() - shared,
        mismatched=[name for name in shared if state[name].shape != expected[name].shape],
    )
    check_precision(place.weights.name, {name: tensor.dtype for name, tensor in state.items()}, expected)
    check_finite(place.weights.name, state)
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def similarity(module: nn.Module) -> Similarity:
    """Return how a model was trained to read its cosines. Raises SourceError for a scale that is not finite."""
    scale = float(cast("Tensor", module.logit_scale).reshape(-1)[0].double().exp())
    bias = getattr(module, "logit_bias", None)
    if bias is None:
        return Similarity(kind="softmax", scale=scale)
    return Similarity(kind="sigmoid", scale=scale, bias=float(bias.reshape(-1)[0]))


def _build(place: OpenClipPlace) -> nn.Module:
    """Return open_clip's class for a configuration, as its factory chooses it, without fetching any tower's weights."""
    config = copy.deepcopy(place.model)
    text, vision = part(config, "text_cfg"), part(config, "vision_cfg")
    has_own_text = bool(config.pop("custom_text", False)) or "hf_model_name" in text
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    kind = open_clip.CLIP
    if has_own_text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        return cast("nn.Module", kind(**config))
    except LIBRARY_ERRORS as error:
        raise SourceError(
            f"open_clip {open_clip.__version__} cannot build {place.name}: {type(error).__name__}: "
            f"{first_sentence(error)}. Correct its configuration, or update open_clip_torch and timm."
        ) from error


def _renamed(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names of open_clip's modules: those of Apple's MobileCLIP and of older files too."""
    try:
        state = cast("dict[str, Tensor]", convert_state_dict(module, state))
    except LIBRARY_ERRORS as error:
        raise SourceError(
            f"these weights are of Apple's MobileCLIP, and not of {type(module).__name__} as configured: "
            f"{first_sentence(error)}. Give the --model that they are of."
        ) from error
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = cast("dict[str, Tensor]", convert_to_custom_text_state_dict(state))
    for name in ("logit_scale", "logit_bias"):  # of shape () or (1,), by release
        own = getattr(module, name, None)
        if name in state and own is not None and state[name].numel() == own.numel():
            state[name] = state[name].reshape(own.shape)
    if _COMPUTED not in module.state_dict():
        state.pop(_COMPUTED, None)
    return state
