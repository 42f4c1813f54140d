"""What an imported tower brings along: how pictures and texts reach it, and how its cosines are read."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.imported import is_imported, read_imported
from mmalign.losses import AnyLossConfig
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.sigmoid import SigmoidConfig
from mmalign_runtime.spec import ImageSpec, Similarity, TextSpec

Spec = TypeVar("Spec", ImageSpec, TextSpec)

# What refuses items or is the user's to choose, and moves no vector of those that the source's library embeds.
_OWN_CHOICE = ("limits", "jpeg_oversampling", "max_characters")


def with_imported(config: Config) -> Config:
    """Return a configuration with the specs of its imported towers, and with their scale where both are of one model.

    What the configuration leaves at its default is the source's. Raises ConfigError for what it sets otherwise, and as
    `read_imported`.
    """
    image, text = config.image_tower.name, config.text_tower.name
    models = {name: read_imported(name) for name in (image, text) if is_imported(name)}
    if image in models:
        if models[image].image.spec.resize == "naflex":
            raise ConfigError(
                f"image_tower.name is {image!r}, which reads patches at a picture's own ratio (naflex), and towers "
                "learn here from pixels of one size. Begin from a model of a fixed size; `mmalign import` makes a "
                "bundle of this one as it is."
            )
        own = _own("image", config.image, models[image].image.spec, ImageSpec())
        config = msgspec.structs.replace(config, image=own)
    if text in models:
        config = msgspec.structs.replace(config, text=_own("text", config.text, models[text].text.spec, TextSpec()))
    if image in models and image == text and config.loss == InfoNCEConfig():
        config = msgspec.structs.replace(config, loss=_loss_of(models[image].similarity))
    return config


def _own(table: str, given: Spec, own: Spec, default: Spec) -> Spec:
    """Return the source's spec, with what the configuration may choose."""
    chosen = {}
    for name in given.__struct_fields__:
        value, theirs = getattr(given, name), getattr(own, name)
        if value in (theirs, getattr(default, name)):
            continue
        if name not in _OWN_CHOICE:
            raise ConfigError(
                f"{table}.{name} is {value!r}, and the imported {table} tower was made with {theirs!r}. Leave it out."
            )
        chosen[name] = value
    return msgspec.structs.replace(own, **chosen)


def _loss_of(similarity: Similarity) -> AnyLossConfig:
    """Return the loss that reads cosines as the source does, from where the source stopped."""
    temperature = 1.0 / similarity.scale
    most = max(InfoNCEConfig().max_logit_scale, 1.0 / temperature)
    if similarity.kind == "sigmoid":
        return SigmoidConfig(temperature=temperature, max_logit_scale=most, bias=similarity.bias)
    return InfoNCEConfig(temperature=temperature, max_logit_scale=most)
