"""Rewrites a product, and what stands right behind it, as one in eight bits: unsigned activations, signed weights.

Letters: K features in, N features out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations, smoothing_scales
from mmalign_export.quantization.epilogues import find_epilogue
from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, array_of
from mmalign_export.quantization.rounding import ColumnRounder, Granularity, Rounder
from mmalign_export.quantization.sites import Role, Site
from mmalign_export.quantization.skips import take_bias


class IntegerPlan(msgspec.Struct, frozen=True):
    """How products are rounded: by role, "static" unless `granularity` says "token"; `excluded` sites stay float32.

    `smoothing` is SmoothQuant's alpha (0 leaves channels as they are), `percentile` of sample values bounds static
    scales (100: their extremes).
    """

    granularity: Mapping[Role, Granularity] = msgspec.field(default_factory=dict)
    smoothing: float = 0.7
    percentile: float = 100.0
    excluded: frozenset[str] = frozenset()

    def rounds(self, site: Site) -> bool:
        """Whether a site is to be rounded."""
        return site.name not in self.excluded

    def granularity_of(self, site: Site) -> Granularity:
        """Return how what flows into a site is rounded."""
        return self.granularity.get(site.role, "static")

    def smooths(self, site: Site) -> bool:
        """Whether channels are divided before what flows into a site is rounded; GELU's output by token bears none."""
        return self.smoothing > 0 and not (site.role == "down" and self.granularity_of(site) == "token")


class Products:
    """Adds a plan's products to a graph."""

    def __init__(
        self,
        editor: GraphEditor,
        sites: Sequence[Site],
        activations: Mapping[str, Activations],
        plan: IntegerPlan,
        columns: ColumnRounder,
    ) -> None:
        self.editor = editor
        self.plan = plan
        self._activations = activations
        self._columns = columns
        self._rounder = Rounder(editor, activations, plan.percentile)
        by_source: dict[str, list[Site]] = {}
        for site in sites:
            by_source.setdefault(site.source, []).append(site)
        scales = {source: self._channel_scales(group) for source, group in by_source.items()}
        self._scales = {site.name: scales[site.source] for site in sites}
        # What stands before the products of values and of `mixed` is divided where it is made, at no cost.
        self.divided = {
            site.source_site: self._scales[site.name] for site in sites if site.source_site and plan.rounds(site)
        }

    def add(
        self, site: Site, source: ir.Value, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, name: str
    ) -> ir.Value:
        """Add `source @ weight + bias` in eight bits, named `name`; the (K, N) weight is not smoothed yet."""
        editor, scales = self.editor, self._scales[site.name]
        columns = self._columns.round(weight * scales[:, None], site.source, scales)
        rounded = self._rounder.round(
            source,
            scales,
            self.plan.granularity_of(site),
            is_gelu=site.role == "down",
            is_divided=site.source_site is not None,
        )
        inputs = [
            rounded.levels,
            editor.constant(f"{name}_weight_int8", columns.levels),
            rounded.step,
            editor.constant(f"{name}_weight_scale", columns.steps),
            rounded.zero_point,
        ]
        if rounded.offset:  # what was taken off every value comes back as one vector
            offsets = rounded.offset * (columns.levels.astype(np.float32).sum(axis=0) * columns.steps)  # (N,)
            bias = offsets + (0 if bias is None else bias)
        added = None if bias is None else editor.constant(f"{name}_bias", bias)
        if rounded.token_scale is None:
            return editor.add("MatMulIntegerToFloat", [*inputs, *([None, added] if added else [])], name, MICROSOFT)
        levels = editor.add("MatMulIntegerToFloat", inputs, f"{name}_levels", MICROSOFT)
        if added is None:
            return editor.add("Mul", [levels, rounded.token_scale], name)
        return editor.add("Add", [editor.add("Mul", [levels, rounded.token_scale], f"{name}_scaled"), added], name)

    def _channel_scales(self, sites: Sequence[Site]) -> NDArray[np.float32]:
        """Return (K,) for the sites that share one source."""
        constants = self.editor.graph.initializers
        weight = np.concatenate([array_of(constants[each.weight]) for each in sites], axis=1)  # (K, N)
        if not self.plan.smooths(sites[0]):
            return np.ones(len(weight), np.float32)
        return smoothing_scales(self._activations[sites[0].source].reach(), weight, self.plan.smoothing)


def replace_product(products: Products, node: ir.Node, site: Site) -> None:
    """Put a product in eight bits in the place of a MatMul, of its epilogue, and of the bias of a skip behind them."""
    source, weight = node.inputs[0], array_of(node.inputs[1])
    assert source is not None
    epilogue = find_epilogue(node.outputs[0], weight.shape[1])
    if epilogue.scale is not None:
        weight = weight * epilogue.scale  # (K, N)
    bias, late = epilogue.bias, take_bias(epilogue.output)
    if late is not None:
        bias = late if bias is None else (bias + late).astype(np.float32)
    products.editor.replace(epilogue.output, products.add(site, source, weight, bias, str(epilogue.output.name)))
