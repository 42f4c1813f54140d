"""A module of open_clip with exactly the weights of a file: nothing drawn at random, resized or dropped."""

from __future__ import annotations

import copy
from typing import cast

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from mmalign_export.errors import SourceError
from mmalign_export.sources.open_clip_place import OpenClipPlace, part
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_finite, check_loaded, first_sentence
from mmalign_export.sources.state_dicts import read_state
from mmalign_export.sources.weight_files import check_precision
from mmalign_runtime.spec import Similarity

# Kept in files that older releases of transformers wrote; what they hold is computed.
_COMPUTED = "text.transformer.embeddings.position_ids"


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
