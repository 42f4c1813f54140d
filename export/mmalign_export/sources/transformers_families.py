"""The dual encoders of transformers, each by what its configuration does not say: parts, padding and similarity."""

from __future__ import annotations

from typing import Literal

import msgspec

ReadAt = Literal["CLIP's end token", "end token", "first token", "last place", "mean", "pooler"]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture. Its towers are what `get_image_features` and `get_text_features` read of its parts.

    Attributes:
        model: The class in transformers.
        image: The names of the image tower's part and of its projection, which may be missing.
        text: The same of the text tower.
        has_patches: Whether the image tower reads patches at a picture's own ratio, with a mask and their places.
        has_mask: Whether padding is kept out by an attention mask. Without one it is seen, or cannot be: a causal
            tower that reads the end token sees nothing behind it.
        padding: "longest" where padding changes nothing; "fixed" where the tower was trained with it.
        read_at: Where a text's vector is taken; CLIP's end token is the highest id where `eos_token_id` is 2.
        similarity: How its cosines are read.
        scale: The parameter that holds the scale: its logarithm, or one over it.
    """

    model: str
    image: tuple[str, str] = ("vision_model", "visual_projection")
    text: tuple[str, str] = ("text_model", "text_projection")
    has_patches: bool = False
    has_mask: bool = True
    padding: Literal["longest", "fixed"] = "longest"
    read_at: ReadAt = "first token"
    similarity: Literal["softmax", "sigmoid"] = "softmax"
    scale: Literal["logit_scale", "temperature", "config"] = "logit_scale"


# config.json's model_type -> what it is
FAMILIES: dict[str, Family] = {
    "clip": Family(model="CLIPModel", has_mask=False, read_at="CLIP's end token"),
    "metaclip_2": Family(model="MetaClip2Model", has_mask=False, read_at="end token"),
    "groupvit": Family(model="GroupViTModel", has_mask=False, read_at="CLIP's end token"),
    "siglip": Family(model="SiglipModel", has_mask=False, padding="fixed", read_at="last place", similarity="sigmoid"),
    "siglip2": Family(
        model="Siglip2Model",
        has_patches=True,
        has_mask=False,
        padding="fixed",
        read_at="last place",
        similarity="sigmoid",
    ),
    "altclip": Family(model="AltCLIPModel"),
    "chinese_clip": Family(model="ChineseCLIPModel"),
    "align": Family(model="AlignModel", scale="temperature"),
    "blip": Family(
        model="BlipForImageTextRetrieval",
        image=("vision_model", "vision_proj"),
        text=("text_encoder", "text_proj"),
        scale="config",
    ),
    "tipsv2": Family(model="Tipsv2Model", read_at="mean", scale="temperature"),
    "vision-text-dual-encoder": Family(model="VisionTextDualEncoderModel", read_at="pooler"),
}
