"""The files of a bundle that other tools read, under the names that transformers and transformers.js look for.

`AutoTokenizer`, `AutoImageProcessor` and `AutoConfig` of transformers load them. The weights are in the ONNX files
alone: transformers has no class that pools and projects as this model does, so nothing here lets it build one unseen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from mmalign.dual_model import DualModel, TextModelTower
from mmalign_runtime.spec import ImageSpec
from mmalign_runtime.spec.image import Resize

TOKENIZER = "tokenizer.json"

# transformers' numbers for Pillow's filters
_RESAMPLE = {"bilinear": 2, "bicubic": 3}
# What CLIPImageProcessor resizes to; it fills no borders and cuts no patches.
_RESIZES: dict[Resize, Callable[[ImageSpec], dict[str, int]]] = {
    "squash": lambda image: _sides(image.shape),
    "shortest_edge": lambda image: {"shortest_edge": image.shortest_edge},
    "resize_then_crop": lambda image: _sides(image.resized_shape),
}
_MASK_TOKENS = ("[MASK]", "<mask>")


def write_side_files(model: DualModel, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, preprocessor_config.json and, of towers that have one, config.json.

    A configuration without its towers would be read as another model, so that it is left out.
    """
    text = model.text
    (folder / TOKENIZER).write_text(text.tokenizer.to_str(pretty=True), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(text))
    if model.image.spec.resize in _RESIZES:
        _write_json(folder / "preprocessor_config.json", _preprocessor_config(model.image.spec))
    if model.image.description and text.description:
        _write_json(folder / "config.json", _model_config(model))


def _model_config(model: DualModel) -> dict[str, object]:
    return {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": model.embed_dim,
        "logit_scale_init_value": math.log(model.similarity.scale),
        "vision_config": model.image.description,
        "text_config": model.text.description,
    }


def _tokenizer_config(tower: TextModelTower) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # as tokenizer.json says, and nothing added
        "model_max_length": tower.spec.context_length,
        "padding_side": tower.spec.padding_side,
        "truncation_side": tower.spec.truncation_side,
        "clean_up_tokenization_spaces": False,
        "model_input_names": list(tower.input_names),
        **_special_tokens(tower.tokenizer),
        "pad_token": tower.spec.pad_token,
    }


def _special_tokens(tokenizer: Tokenizer) -> dict[str, object]:
    """Name the special tokens of a tokenizer by what it does with them; one it does not hold for special is left out.

    transformers makes every token that is named here special, which would split texts otherwise than tokenizer.json.
    """
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    around = tokenizer.encode("").tokens  # of an empty text only what stands around it is left
    named: dict[str, str | None] = {
        "unk_token": getattr(tokenizer.model, "unk_token", None),
        "cls_token": around[0] if len(around) > 1 else None,
        "sep_token": around[-1] if len(around) > 1 else None,
        "mask_token": next((token for token in _MASK_TOKENS if token in special), None),
    }
    return {role: token for role, token in named.items() if token in special}


def _preprocessor_config(image: ImageSpec) -> dict[str, object]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": _RESIZES[image.resize](image),
        "resample": _RESAMPLE[image.interpolation],
        "do_center_crop": image.resize != "squash",
        "crop_size": _sides(image.shape),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }


def _sides(shape: tuple[int, int]) -> dict[str, int]:
    return {"height": shape[0], "width": shape[1]}


def _write_json(path: Path, contents: dict[str, object]) -> None:
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
