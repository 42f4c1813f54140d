"""The two towers of a model of transformers: each one's part of it, without the projection, in the library's own code.

Shapes: B batch, L tokens, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import msgspec
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmalign.dual_model import ImageModelTower, TextModelTower
from mmalign.signature import image_inputs, text_inputs
from mmalign_export.errors import SourceError
from mmalign_export.sources.transformers_families import Family
from mmalign_export.sources.transformers_original import PlacedEmbeddings, image_features, placed_patches, text_features
from mmalign_export.sources.trial import tried_width
from mmalign_runtime.spec import ImageSpec, TextSpec

# What of a tower's configuration decides its vectors beside its weights, where it has it.
_DECIDING = (
    *(
        "model_type",
        "hidden_act",
        "num_attention_heads",
        "layer_norm_eps",
        "eos_token_id",
        "pad_token_id",
        "image_size",
    ),
    *(
        "patch_size",
        "position_embedding_type",
        "use_attention_mask",
        "vision_use_head",
        "pooling_epsilon",
        "layer_norm",
    ),
    *("num_key_value_heads", "rope_parameters", "use_swiglu_ffn", "width_coefficient", "depth_coefficient"),
)

# The same, younger than the first ids: what is still as transformers has it unasked keeps its id.
_YOUNGER: dict[str, object] = {
    **{"batch_norm_eps": 1e-3, "pooling_type": "mean", "depthwise_padding": [], "strides": [1, 2, 2, 2, 1, 2, 1]},
    **{"assign_eps": 1.0, "num_output_groups": [64, 8, 8], "scale_sqrt_depth": True},
}


class ImagePart(nn.Module):
    """(B, 3, H, W) -> pooled features (B, F)."""

    def __init__(self, model: transformers.PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.model = _part(model, *family.image)
        self.family = family

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return features."""
        return image_features(self.model, self.family, pixel_values)


class PatchPart(nn.Module):
    """Patches (B, N, 3 P^2 + 2) -> pooled features (B, F): the library's tower, with positions that fit any batch."""

    def __init__(self, model: transformers.PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.model = _part(model, *family.image)
        tower = copy.copy(self.model.get_submodule(family.image[0]))
        children: dict[str, nn.Module] = dict(tower.named_children())
        children["embeddings"] = PlacedEmbeddings(children["embeddings"])
        tower.__dict__ |= {"_modules": children}
        self.model.add_module(family.image[0], tower)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return features."""
        features = cast("Callable[..., object]", self.model.get_image_features)(**placed_patches(pixel_values))
        return cast("Tensor", features.pooler_output)  # type: ignore[attr-defined]


class TextPart(nn.Module):
    """Ids, and a mask where the family has one, (B, L) -> pooled features (B, F)."""

    def __init__(self, model: transformers.PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.model = _part(model, *family.text)
        self.family = family

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return features."""
        return text_features(self.model, self.family, input_ids, attention_mask)


def image_tower(
    model: transformers.PreTrainedModel, family: Family, spec: ImageSpec, config: dict[str, object]
) -> ImageModelTower:
    """Return the image tower. Raises SourceError when it is not one, or takes other sizes."""
    part = PatchPart if family.has_patches else ImagePart
    backbone, projection = part(model, family).eval(), _projection(model, family.image[1])
    feature_dim, embed_dim = tried_width("image tower", image_inputs(spec), backbone, projection)
    return ImageModelTower(
        backbone=backbone,
        projection=projection,
        feature_dim=feature_dim,
        embed_dim=embed_dim,
        inputs=image_inputs(spec),
        architecture=str(config["model_type"]),
        definition=_definition(model, config),
        spec=spec,
    )


def text_tower(
    model: transformers.PreTrainedModel, family: Family, spec: TextSpec, config: dict[str, object], tokenizer: Tokenizer
) -> TextModelTower:
    """Return the text tower. Raises SourceError when it is not one."""
    backbone, projection = TextPart(model, family).eval(), _projection(model, family.text[1])
    inputs = text_inputs(spec) if family.has_mask else text_inputs(spec)[:1]
    feature_dim, embed_dim = tried_width("text tower", inputs, backbone, projection)
    return TextModelTower(
        backbone=backbone,
        projection=projection,
        feature_dim=feature_dim,
        embed_dim=embed_dim,
        inputs=inputs,
        architecture=str(config["model_type"]),
        definition=_definition(model, config),
        spec=spec,
        tokenizer=tokenizer,
    )


def _projection(model: transformers.PreTrainedModel, name: str) -> nn.Module:
    """Return the projection behind a tower, the identity where the model has none."""
    return dict(model.named_children()).get(name, nn.Identity())


def _definition(model: transformers.PreTrainedModel, config: dict[str, object]) -> str:
    """Return what decides a tower's vectors beside its weights: the class, and what its configuration says."""
    deciding = {name: config[name] for name in _DECIDING if config.get(name) is not None}
    younger = {name: list(each) if isinstance(each := config.get(name), tuple) else each for name in _YOUNGER}
    deciding |= {name: each for name, each in younger.items() if each is not None and each != _YOUNGER[name]}
    return f"transformers {type(model).__name__} {msgspec.json.encode(deciding, order='sorted').decode()}"


def _part(model: transformers.PreTrainedModel, part: str, projection: str) -> nn.Module:
    """Return the model with one tower alone, and an identity where its projection was. Nothing is copied."""
    children = dict(model.named_children())
    if part not in children:
        raise SourceError(f"{type(model).__name__} has no {part}: it is not the dual encoder that it was taken for.")
    alone = copy.copy(model)
    kept: dict[str, nn.Module | None] = {part: children[part]}
    if projection in children:
        kept[projection] = nn.Identity()
    alone.__dict__ |= {"_modules": kept, "_parameters": {}, "_buffers": {}}
    return alone
