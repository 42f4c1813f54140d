"""Rewrites a fused transformer so that its products run in eight bits: unsigned activations, signed weights.

Signs matter: onnxruntime multiplies unsigned by signed bytes with the processor's own instructions, and signed by
signed fifty times slower. Scales of activations are fixed beforehand ("static"), or made from each token alone
("token"): neither looks at another item, so no vector depends on its batch.
Letters: K features in, N features out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.activations import Activations, smoothing_scales
from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, attributes_of
from mmalign_export.quantization.sites import Role, Site

Granularity = Literal["static", "token"]

_LEVELS = 255
_HALF = 127
# No scale is zero, whatever a channel or a token held.
_LEAST_SCALE = 1e-10
# The least value of GELU (at x = -0.7518): below it there is nothing to tell apart.
_GELU_MINIMUM = -0.17


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
    fused: ModelProto, sites: tuple[Site, ...], activations: Mapping[str, Activations], plan: IntegerPlan
) -> ModelProto:
    """Return the model with every product that is not excluded in eight bits.

    Raises QuantizationError for attention that is not a BERT's.
    """
    return _Rewriter(GraphEditor(fused), sites, activations, plan).rewrite()


class _Rewriter:
    def __init__(
        self,
        editor: GraphEditor,
        sites: tuple[Site, ...],
        activations: Mapping[str, Activations],
        plan: IntegerPlan,
    ) -> None:
        self._editor = editor
        self._sites = {site.name: site for site in sites}
        self._activations = activations
        self._plan = plan
        self._rounded: dict[str, _Rounded] = {}
        scales = {source: self._channel_scales(group) for source, group in _by_source(sites).items()}
        self._scales = {site.name: scales[site.source] for site in sites}
        # What stands before the products of values and of `mixed` is divided where it is made, at no cost.
        self._divided = {
            site.source_site: self._scales[site.name] for site in sites if site.source_site and self._is_rounded(site)
        }
        self._late_bias = _biases_of_skips(editor)

    def rewrite(self) -> ModelProto:
        for node in self._editor.nodes:
            site = self._sites.get(node.output[0])
            if node.op_type == "Attention" and site is not None:
                self._attention(node, site)
            elif site is not None and self._is_rounded(site):
                weight = self._editor.value(site.weight)
                self._product(site, weight, self._late_bias.get(site.name), site.name)
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
        inputs = [*node.input, *[""] * 7][:7]
        if inputs[3] or inputs[4] or inputs[6] or set(attributes) - {"num_heads", "scale", "qkv_hidden_sizes"}:
            reason = f"{name}: attention with inputs {list(node.input)[3:]} and attributes {sorted(attributes)}"
            raise QuantizationError(f"{reason} cannot be taken apart; expected a BERT's. Leave it out by its name.")
        sizes = attributes.get("qkv_hidden_sizes") or [len(bias) // 3] * 3
        starts = np.cumsum(np.asarray(sizes))[:2]
        parts = np.split(packed, starts, axis=1)
        names = [
            self._product(site, part, editor.constant(f"{name}_{kind}_bias", part_bias), f"{name}_{kind}")
            for kind, part, part_bias in zip(("query", "key", "value"), parts, np.split(bias, starts), strict=True)
        ]
        numbers = {key: value for key, value in attributes.items() if isinstance(value, int | float)}
        editor.add("MultiHeadAttention", [*names, "", "", inputs[5]], name, MICROSOFT, **numbers)

    def _product(self, site: Site, weight: NDArray[np.float32], bias: str | None, name: str) -> str:
        """Add `source @ weight + bias` in eight bits, named `name`; the (K, N) weight is not smoothed yet."""
        editor = self._editor
        scales = self._scales[site.name]
        smoothed = weight * scales[:, None]
        steps = np.maximum(np.abs(smoothed).max(axis=0) / _HALF, _LEAST_SCALE).astype(np.float32)  # (N,)
        integers = np.clip(np.round(smoothed / steps), -_HALF, _HALF).astype(np.int8)  # (K, N)
        rounded = self._rounded_source(site, scales)
        inputs = [
            rounded.levels,
            editor.constant(f"{name}_weight_int8", integers),
            rounded.step,
            editor.constant(f"{name}_weight_scale", steps),
            rounded.zero_point,
        ]
        if rounded.token_scale is None:
            return editor.add("MatMulIntegerToFloat", [*inputs, *(["", bias] if bias else [])], name, MICROSOFT)
        if rounded.offset:  # what was taken off every value comes back as one vector
            columns = rounded.offset * (integers.astype(np.float32).sum(axis=0) * steps)  # (N,)
            bias = editor.constant(f"{name}_offset_bias", columns + (editor.value(bias) if bias else 0))
        levels = editor.add("MatMulIntegerToFloat", inputs, f"{name}_levels", MICROSOFT)
        if not bias:
            return editor.add("Mul", [levels, rounded.token_scale], name)
        return editor.add("Add", [editor.add("Mul", [levels, rounded.token_scale], f"{name}_scaled"), bias], name)

    def _rounded_source(self, site: Site, scales: NDArray[np.float32]) -> _Rounded:
        key = site.source  # products that share it share the rounding: queries, keys and values do
        if key not in self._rounded:
            source = site.source
            if site.source_site is None and not np.all(scales == 1):
                divisor = self._editor.constant(f"{source}_smoothing", (1 / scales).astype(np.float32))
                source = self._editor.add("Mul", [source, divisor], f"{source}_smoothed")
            make = self._by_token if self._granularity(site) == "token" else self._static
            self._rounded[key] = make(site, source, scales)
        return self._rounded[key]

    def _static(self, site: Site, source: str, scales: NDArray[np.float32]) -> _Rounded:
        found = self._activations[site.source]
        if self._plan.percentile < 100:
            rows = found.rows / scales
            low, high = np.percentile(rows, (100 - self._plan.percentile, self._plan.percentile))
        else:
            low, high = (found.low / scales).min(), (found.high / scales).max()
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        step = max((high - low) / _LEVELS, _LEAST_SCALE)
        editor = self._editor
        scale = editor.constant(f"{source}_scale", np.float32(step))
        zero_point = editor.constant(f"{source}_zero_point", np.uint8(round(-low / step)))
        levels = editor.add("QuantizeLinear", [source, scale, zero_point], f"{source}_uint8")
        return _Rounded(levels, scale, zero_point)

    def _by_token(self, site: Site, source: str, scales: NDArray[np.float32]) -> _Rounded:
        """Round each token by its own largest value; standard operators alone, which every engine reads."""
        editor = self._editor
        is_gelu = site.role == "down"
        offset = _GELU_MINIMUM if is_gelu else 0.0
        if is_gelu:
            shifted = editor.add("Add", [source, editor.constant("gelu_offset", np.float32(-offset))], f"{source}_up")
        magnitudes = shifted if is_gelu else editor.add("Abs", [source], f"{source}_magnitude")
        values = shifted if is_gelu else source
        last_axis = editor.constant("last_axis", np.array([-1], np.int64))
        largest = editor.add("ReduceMax", [magnitudes, last_axis], f"{source}_largest", keepdims=1)
        part = editor.constant(f"{source}_part", np.float32(1 / (_LEVELS if is_gelu else _HALF)))
        least = editor.constant("least_scale", np.float32(_LEAST_SCALE))
        token_scale = editor.add("Mul", [largest, part], f"{source}_token_step")
        token_scale = editor.add("Max", [token_scale, least], f"{source}_token_scale")
        one = editor.constant("one", np.float32(1))
        zero_point = editor.constant(f"{source}_zero_point", np.uint8(0 if is_gelu else 128))
        unit = editor.add("Div", [values, token_scale], f"{source}_unit")
        levels = editor.add("QuantizeLinear", [unit, one, zero_point], f"{source}_uint8")
        return _Rounded(levels, one, zero_point, token_scale, offset)

    def _normalization(self, node: NodeProto) -> None:
        """Take skip and normalisation apart: onnxruntime's fused kernel takes five times as long on the CPU."""
        editor, name = self._editor, node.output[0]
        source, skip, weight, bias = node.input[:4]
        late = node.input[4] if len(node.input) > 4 else ""
        made_here = self._sites.get(source)
        if late and not (made_here and self._is_rounded(made_here)):
            source = editor.add("Add", [source, late], f"{name}_biased")
        total = editor.add("Add", [source, skip], f"{name}_sum")
        epsilon = attributes_of(node)["epsilon"]
        assert isinstance(epsilon, float)
        editor.add("LayerNormalization", [total, weight, bias], name, axis=-1, epsilon=epsilon)


class _Rounded(msgspec.Struct, frozen=True):
    """A tensor in eight bits: its levels, scale and zero point; by token, also the scales and what was taken off."""

    levels: str
    step: str
    zero_point: str
    token_scale: str | None = None
    offset: float = 0.0


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
    return is_skip and not any(editor.num_uses(name) for name in node.output[1:] if name)
