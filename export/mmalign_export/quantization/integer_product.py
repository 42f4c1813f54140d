"""A product with a constant matrix, in eight bits, with what stands right behind it as its bias and column scales.

Letters: K features in, N features out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations, smoothing_scales
from mmalign_export.quantization.columns import ColumnRounder
from mmalign_export.quantization.epilogues import find_epilogue
from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, array_of
from mmalign_export.quantization.integer_plan import IntegerPlan
from mmalign_export.quantization.rounding import Rounder
from mmalign_export.quantization.sites import Site
from mmalign_export.quantization.skips import take_bias

Columns = NDArray[np.float32]


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
        scales = {source: self._channel_scales(group) for source, group in _by_source(sites).items()}
        self._scales = {site.name: scales[site.source] for site in sites}
        # What stands before the products of values and of `mixed` is divided where it is made, at no cost.
        self.divided = {
            site.source_site: self._scales[site.name] for site in sites if site.source_site and plan.rounds(site)
        }

    def add(
        self, site: Site, source: ir.Value, weight: NDArray[np.float32], bias: Columns | None, name: str
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


def _by_source(sites: Sequence[Site]) -> dict[str, list[Site]]:
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.source, []).append(site)
    return groups
