"""The ladder of products: a transformer's, and those that stand between convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from onnx import ModelProto

from mmalign_export.quantization.activations import record_activations
from mmalign_export.quantization.columns import ColumnRounder
from mmalign_export.quantization.integer import to_integers
from mmalign_export.quantization.integer_plan import IntegerPlan
from mmalign_export.quantization.items import Item
from mmalign_export.quantization.recipe import Recipe
from mmalign_export.quantization.rounding import Granularity
from mmalign_export.quantization.sites import Role, find_sites

_EVERY_TOKEN: dict[Role, Granularity] = {
    "qkv": "token",
    "mixed": "token",
    "up": "token",
    "down": "token",
    "other": "token",
}
_PLANS = {
    "static, 0.5": IntegerPlan(smoothing=0.5),
    "static, 0.7": IntegerPlan(smoothing=0.7),
    "static, 0.8": IntegerPlan(smoothing=0.8),
    "static, 0.7, percentile": IntegerPlan(smoothing=0.7, percentile=99.99),
    "static, 0.7, by token": IntegerPlan({"down": "token"}, 0.7),
    "by token, 0.7": IntegerPlan(_EVERY_TOKEN, 0.7),
}


class ProductLadder:
    """The products of a fused graph, and what flows into each.

    `sites` are empty where nothing is to be rounded. What multiplies pooled features, one row an item, stays in
    float32: it costs next to nothing, and no later layer evens out what it rounds.
    """

    def __init__(self, fused: ModelProto, items: Sequence[Item]) -> None:
        self.fused = fused
        found = find_sites(fused)
        self._activations = record_activations(fused, {site.source for site in found}, items)
        self.sites = tuple(site for site in found if self._activations[site.source].most_rows > 1)
        self.layers = tuple(site.name for site in self.sites)
        self._columns = ColumnRounder(self._activations)

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the rungs: static, by token in part, by token."""
        return tuple(
            Recipe(name, partial(self.build, name), self.layers, fixes_products=self.fixes(name)) for name in _PLANS
        )

    @staticmethod
    def fixes(plan: str) -> bool:
        """Whether a plan has fixed ranges, where others have scales by token."""
        return _PLANS[plan].granularity != _EVERY_TOKEN

    def build(self, plan: str, excluded: frozenset[str]) -> ModelProto:
        """Return the model with its products rounded as a plan says, all but the `excluded`."""
        kept = msgspec.structs.replace(_PLANS[plan], excluded=excluded)
        return to_integers(self.fused, self.sites, self._activations, kept, self._columns)
