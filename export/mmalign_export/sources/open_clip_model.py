"""From open_clip's module, tokenizer and configuration to a DualModel, with the pipeline that it is proven against.

Image towers are rewritten for inference; the pipeline is open_clip's own.
Shapes: B batch, D embedding, H and W image sides.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Protocol, cast

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor, nn

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, TextModelTower
from mmalign.signature import BATCH, Axis, ModuleInput, image_inputs
from mmalign_export.errors import FormatLimitError, SourceError
from mmalign_export.rewrite.attention import structural_copy, unfuse_attention, write_out_attention
from mmalign_export.rewrite.attention_pool import write_out_pool
from mmalign_export.rewrite.reparameterized import fold_branches
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import source_file
from mmalign_export.sources.open_clip_place import OpenClipPlace, load_module, part, similarity
from mmalign_export.sources.open_clip_text import (
    OpenClipTokenizer,
    check_end,
    keeps_vectors_at_real_length,
    read_tokenizer,
    text_backbone,
)
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import check_widths, checked_pictures
from mmalign_export.sources.trial import tried_width
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_runtime.spec import Choice, ImageSpec, TextSpec

# As open_clip's transform checks them; it reads "random", of training, as bicubic.
_ALLOWED = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
_BATCH = 16
_LIBRARY = "open_clip_torch"
_VERSIONS = (_LIBRARY, "timm", "torch", "transformers")
# What of a configuration moves no vector: training, and places.
_SILENT = frozenset(
    {"hf_model_name", "hf_model_pretrained", "hf_tokenizer_name", "timm_model_pretrained", "patch_dropout"}
    | {"timm_drop", "timm_drop_path", "output_tokens"}
)


def image_backbone(visual: nn.Module) -> nn.Module:
    """Return an image tower of open_clip rewritten, pixel_values (B, 3, H, W) -> vectors (B, D)."""
    found = structural_copy(visual)
    found.output_tokens = False  # type: ignore[assignment]
    fold_branches(found)
    write_out_attention(found)
    write_out_pool(found)
    unfuse_attention(found)
    return found


def preprocessing(place: OpenClipPlace, visual: nn.Module) -> PreprocessCfg:
    """Return open_clip's preprocessing of a model, made as its factory makes it. Raises SourceError."""
    config = merge_preprocess_dict(asdict(PreprocessCfg()), place.preprocessing)
    config["size"] = visual.image_size
    try:
        return PreprocessCfg(**config)
    except (TypeError, AssertionError) as error:
        raise SourceError(f"open_clip knows no such preprocess_cfg: {config}. Correct {place.name}'s.") from error


def image_spec(config: PreprocessCfg, options: SourceOptions) -> ImageSpec:
    """Return the spec of open_clip's preprocessing. Raises SourceError and FormatLimitError."""
    for name, allowed in _ALLOWED.items():
        if getattr(config, name) not in allowed:
            raise SourceError(f"open_clip's {name} {getattr(config, name)!r} is not known; expected {allowed}.")
    height, width = config.size if isinstance(config.size, tuple | list) else (config.size, config.size)
    if config.resize_mode == "shortest" and height != width:
        raise FormatLimitError(
            f"the model covers {height} x {width} pixels with a picture and crops the rest (resize_mode 'shortest'), "
            "which the format says of squares only. Set resize_mode to 'squash' or 'longest' if it was trained so."
        )
    longest = config.resize_mode == "longest"
    resize = {"squash": "squash", "shortest": "shortest_edge", "longest": "longest_edge"}[config.resize_mode]
    level = config.fill_color
    spec = ImageSpec(
        size=height if height == width else (height, width),
        resize=resize,  # type: ignore[arg-type]
        shortest_edge=min(height, width),
        fill=(level, level, level) if longest else (0, 0, 0),
        side_rounding="half_even" if longest else "floor",
        crop_rounding="floor" if longest else "half_even",
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        mean=_three(config.mean),
        std=_three(config.std),
    )
    return checked_pictures(spec, options)


def _three(values: object) -> tuple[float, float, float]:
    """Return a value for each channel; open_clip writes one number where the three are the same."""
    listed = list(values) if isinstance(values, tuple | list) else [values] * 3
    numbers = [float(each) for each in listed if isinstance(each, int | float)]
    if len(listed) != 3 or len(numbers) != 3:
        raise SourceError(f"open_clip's preprocess_cfg has mean or std {values!r}; expected three numbers, or one.")
    red, green, blue = numbers
    return red, green, blue


class DualModule(Protocol):
    """What every model of open_clip offers."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Return (B, D) of pixel values."""

    def encode_text(self, text: Tensor) -> Tensor:
        """Return (B, D) of ids, padded to the context."""


class OpenClipOriginal:
    """An `Original`: open_clip's tokenizer, transform and forward, on its own modules."""

    def __init__(self, module: DualModule, tokenizer: OpenClipTokenizer, preprocessing: PreprocessCfg) -> None:
        self.library = f"open_clip {open_clip.__version__}"
        self._module = module
        self._tokenizer = tokenizer.original
        self._unreplaced = copy.copy(tokenizer.original)
        if isinstance(self._unreplaced, HFTokenizer):
            self._unreplaced.strip_sep_token = False  # ids that the tower replaces are compared as they were
        self._transform = image_transform_v2(preprocessing, is_train=False)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, padded to the context, before any of them is replaced."""
        return cast("list[list[int]]", self._unreplaced(list(texts)).tolist())

    def pixel_values(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (B, 3, H, W). Pictures are resized as they are stored, and made RGB after that."""
        return cast("NDArray[np.float32]", torch.stack([self._transform(image) for image in images]).numpy())

    def image_vectors(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) of any length."""
        with torch.inference_mode():
            vectors = self._module.encode_image(torch.from_numpy(pixel_values))
        return cast("NDArray[np.float32]", vectors.numpy())

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (B, D) of any length; every text at the whole context, as open_clip runs it."""
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                found.append(self._module.encode_text(self._tokenizer(list(texts[start : start + _BATCH]))))
        return cast("NDArray[np.float32]", torch.cat(found).numpy())


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
            files={path.name: source_file(path) for path in place.files},
        ),
    )
    kind_of_tokenizer = type(tokenizer.original).__name__
    return Imported(
        model=model,
        original=OpenClipOriginal(cast("DualModule", module), tokenizer, pixels),
        choices=(
            *place.choices,
            Choice(what="tokenizer", value=kind_of_tokenizer, origin="text_cfg"),
            Choice(what="text cleaning", value=tokenizer.cleaning, origin=f"open_clip's {kind_of_tokenizer}"),
            length,
        ),
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
