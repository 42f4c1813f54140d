"""Rewrites a fused transformer so that its products run in eight bits: unsigned activations, signed weights.

Signs matter: onnxruntime multiplies unsigned by signed bytes with the processor's own instructions, and signed by
signed fifty times slower. Scales of activations are fixed beforehand ("static"), or made from each token alone
("token"): neither looks at another item, so no vector depends on its batch.
Letters: K features in, N features out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from mmalign_export.quantization.activations import Activations, smoothing_scales
from mmalign_export.quantization.columns import ColumnRounder
from mmalign_export.quantization.epilogues import Epilogue, find_epilogues
from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, attributes_of
from mmalign_export.quantization.rounding import Granularity, Rounded, Rounder
from mmalign_export.quantization.sites import Role, Site

# What a SkipLayerNormalization adds to the variance unless it says otherwise.
_SKIP_EPSILON = 1e-12


class IntegerPlan(msgspec.Struct, frozen=True):
    """How products are rounded: by role, "static" unless `granularity` says "token"; `excluded` sites stay float32.

    `smoothing` is SmoothQuant's alpha (0 leaves channels as they are), `percentile` of sample values bounds static
    scales (100: their extremes).
    """

    granularity: Mapping[Role, Granularity] = msgspec.field(default_factory=dict)
    smoothing: float = 0.7
    percentile: float = 100.0
    excluded: frozenset[str] = frozenset()


def to_integers(
    fused: ModelProto,
    sites: tuple[Site, ...],
    activations: Mapping[str, Activations],
    plan: IntegerPlan,
    columns: ColumnRounder | None = None,
) -> ModelProto:
    """Return the model with every product that is not excluded in eight bits; `columns` may know its weights."""
    return _Rewriter(GraphEditor(fused), sites, activations, plan, columns or ColumnRounder(activations)).rewrite()


class _Rewriter:
    def __init__(
        self,
        editor: GraphEditor,
        sites: tuple[Site, ...],
        activations: Mapping[str, Activations],
        plan: IntegerPlan,
        columns: ColumnRounder,
    ) -> None:
        self._editor = editor
        self._sites = {site.name: site for site in sites}
        self._activations = activations
        self._plan = plan
        self._columns = columns
        self._rounder = Rounder(editor, activations, plan.percentile)
        scales = {source: self._channel_scales(group) for source, group in _by_source(sites).items()}
        self._scales = {site.name: scales[site.source] for site in sites}
        # What stands before the products of values and of `mixed` is divided where it is made, at no cost.
        self._divided = {
            site.source_site: self._scales[site.name] for site in sites if site.source_site and self._is_rounded(site)
        }
        rounded = [site for site in sites if self._is_rounded(site)]
        self._epilogues = find_epilogues(editor, rounded)
        self._absorbed = {name for each in self._epilogues.values() for name in each.absorbed}
        late = _biases_of_skips(editor)
        # A skip's bias belongs to the product before it, if nothing else reads that.
        self._late_bias = {
            each.output: late[each.output]
            for each in self._epilogues.values()
            if each.output in late and editor.num_uses(each.output) == 1
        }

    def rewrite(self) -> ModelProto:
        for node in self._editor.nodes:
            site = self._sites.get(node.output[0])
            if node.op_type == "Attention" and site is not None:
                self._attention(node, site)
            elif site is not None and self._is_rounded(site):
                self._with_epilogue(site, self._epilogues[site.name])
            elif node.output[0] in self._absorbed:
                continue
            elif _is_simple_skip(node, self._editor):
                self._normalization(node)
            else:
                self._editor.keep(node)
        return self._editor.build()

    def _is_rounded(self, site: Site) -> bool:
        return site.name not in self._plan.excluded

    def _channel_scales(self, sites: Sequence[Site]) -> NDArray[np.float32]:
        """Return (K,) for the sites that share one source."""
        site = sites[0]
        weight = np.concatenate([self._editor.value(each.weight) for each in sites], axis=1)  # (K, N)
        if not self._plan.smoothing or (site.role == "down" and self._granularity(site) == "token"):
            return np.ones(len(weight), np.float32)
        return smoothing_scales(self._activations[site.source].reach(), weight, self._plan.smoothing)

    def _granularity(self, site: Site) -> Granularity:
        return self._plan.granularity.get(site.role, "static")

    def _attention(self, node: NodeProto, site: Site) -> None:
        """Replace packed attention by three products and attention over what they give, values divided already."""
        editor, name = self._editor, site.name
        packed, bias = editor.value(site.weight), editor.value(node.input[2])  # (K, 3N), (3N,)
        divisor = self._divided.get(name)
        if divisor is not None:
            num_values = len(divisor)
            packed, bias = packed.copy(), bias.copy()
            packed[:, -num_values:] /= divisor
            bias[-num_values:] /= divisor
        if not self._is_rounded(site):
            node.input[1] = editor.constant(f"{name}_weight", packed)
            node.input[2] = editor.constant(f"{name}_bias", bias)
            editor.keep(node)
            return
        attributes = attributes_of(node)
        sizes = attributes.get("qkv_hidden_sizes") or [len(bias) // 3] * 3
        starts = np.cumsum(np.asarray(sizes))[:2]
        parts = np.split(packed, starts, axis=1)
        names = [
            self._product(site, part, editor.constant(f"{name}_{kind}_bias", part_bias), f"{name}_{kind}")
            for kind, part, part_bias in zip(("query", "key", "value"), parts, np.split(bias, starts), strict=True)
        ]
        numbers = {key: value for key, value in attributes.items() if isinstance(value, int | float)}
        added = node.input[5] if len(node.input) > 5 else ""
        editor.add("MultiHeadAttention", [*names, "", "", added], name, MICROSOFT, **numbers)

    def _with_epilogue(self, site: Site, epilogue: Epilogue) -> None:
        """Add a product with what stands right behind it."""
        editor, name = self._editor, epilogue.output
        weight = editor.value(site.weight)
        if epilogue.scale is not None:
            weight = weight * epilogue.scale  # (K, N)
        bias = self._late_bias.get(name)
        if epilogue.bias is not None:
            late = editor.value(bias) if bias else 0
            bias = editor.constant(f"{name}_bias", (epilogue.bias + late).astype(np.float32))
        self._product(site, weight, bias, name)

    def _product(self, site: Site, weight: NDArray[np.float32], bias: str | None, name: str) -> str:
        """Add `source @ weight + bias` in eight bits, named `name`; the (K, N) weight is not smoothed yet."""
        editor = self._editor
        scales = self._scales[site.name]
        columns = self._columns.round(weight * scales[:, None], site.source, scales)
        rounded = self._rounded_source(site, scales)
        inputs = [
            rounded.levels,
            editor.constant(f"{name}_weight_int8", columns.levels),
            rounded.step,
            editor.constant(f"{name}_weight_scale", columns.steps),
            rounded.zero_point,
        ]
        if rounded.token_scale is None:
            return editor.add("MatMulIntegerToFloat", [*inputs, *(["", bias] if bias else [])], name, MICROSOFT)
        if rounded.offset:  # what was taken off every value comes back as one vector
            offsets = rounded.offset * (columns.levels.astype(np.float32).sum(axis=0) * columns.steps)  # (N,)
            bias = editor.constant(f"{name}_offset_bias", offsets + (editor.value(bias) if bias else 0))
        levels = editor.add("MatMulIntegerToFloat", inputs, f"{name}_levels", MICROSOFT)
        if not bias:
            return editor.add("Mul", [levels, rounded.token_scale], name)
        return editor.add("Add", [editor.add("Mul", [levels, rounded.token_scale], f"{name}_scaled"), bias], name)

    def _rounded_source(self, site: Site, scales: NDArray[np.float32]) -> Rounded:
        return self._rounder.round(
            site.source,
            scales,
            self._granularity(site),
            is_gelu=site.role == "down",
            is_divided=site.source_site is not None,
        )

    def _normalization(self, node: NodeProto) -> None:
        """Take skip and normalisation apart: onnxruntime's fused kernel takes five times as long on the CPU."""
        editor, name = self._editor, node.output[0]
        source, skip, weight, bias, late = [*node.input, "", ""][:5]
        if late and source not in self._late_bias:
            source = editor.add("Add", [source, late], f"{name}_biased")
        passed_on = node.output[3] if len(node.output) > 3 else ""
        total = editor.add("Add", [source, skip], passed_on or f"{name}_sum")
        epsilon = attributes_of(node).get("epsilon", _SKIP_EPSILON)
        assert isinstance(epsilon, float)
        editor.add("LayerNormalization", [total, weight, *([bias] if bias else [])], name, axis=-1, epsilon=epsilon)


def _by_source(sites: Sequence[Site]) -> dict[str, list[Site]]:
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.source, []).append(site)
    return groups


def _biases_of_skips(editor: GraphEditor) -> dict[str, str]:
    """Return the biases that a skip adds to a product: they belong to the product, which adds them for nothing."""
    return {
        node.input[0]: node.input[4]
        for node in editor.nodes
        if _is_simple_skip(node, editor) and len(node.input) > 4 and node.input[4]
    }


def _is_simple_skip(node: NodeProto, editor: GraphEditor) -> bool:
    is_skip = node.op_type == "SkipLayerNormalization"
    return is_skip and not any(editor.num_uses(name) for name in node.output[1:3] if name)
