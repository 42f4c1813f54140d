"""Rounds what flows into a product to eight unsigned bits: by scales fixed beforehand, or by each token's own.

Letters: K features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations
from mmalign_export.quantization.graph import GraphEditor

Granularity = Literal["static", "token"]

_LEVELS = 255
_HALF = 127
# No scale is zero, whatever a channel or a token held.
LEAST_SCALE = 1e-10
# The least value of GELU (at x = -0.7518), and below that of QuickGELU: there is nothing to tell apart under it.
_GELU_MINIMUM = -0.17


class Rounded(msgspec.Struct, frozen=True):
    """A tensor in eight bits: its levels, scale and zero point; by token, also the scales and what was taken off."""

    levels: ir.Value
    step: ir.Value
    zero_point: ir.Value
    token_scale: ir.Value | None = None
    offset: float = 0.0


class Rounder:
    """Adds roundings to a graph; what several products share is rounded once."""

    def __init__(self, editor: GraphEditor, activations: Mapping[str, Activations], percentile: float) -> None:
        self._editor = editor
        self._activations = activations
        self._percentile = percentile
        self._rounded: dict[str, Rounded] = {}

    def round(
        self,
        source: ir.Value,
        scales: NDArray[np.float32],
        granularity: Granularity,
        *,
        is_gelu: bool,
        is_divided: bool,
    ) -> Rounded:
        """Return a tensor (..., K) in eight bits, its channels divided by `scales` (K,): already, if `is_divided`.

        `is_gelu` says that a GELU made it, so that nothing is below its minimum.
        """
        name = str(source.name)
        if name not in self._rounded:
            smoothed = source
            if not is_divided and not np.all(scales == 1):
                divisor = self._editor.constant(f"{name}_smoothing", (1 / scales).astype(np.float32))
                smoothed = self._editor.add("Mul", [source, divisor], f"{name}_smoothed")
            if granularity == "token":
                self._rounded[name] = self._by_token(smoothed, is_gelu=is_gelu)
            else:
                self._rounded[name] = self._static(self._activations[name], smoothed, scales)
        return self._rounded[name]

    def _static(self, found: Activations, source: ir.Value, scales: NDArray[np.float32]) -> Rounded:
        if self._percentile < 100:
            rows = found.rows / scales
            low, high = np.percentile(rows, (100 - self._percentile, self._percentile))
        else:
            low, high = (found.low / scales).min(), (found.high / scales).max()
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        step = max((high - low) / _LEVELS, LEAST_SCALE)
        editor, name = self._editor, source.name
        scale = editor.constant(f"{name}_scale", np.float32(step))
        zero_point = editor.constant(f"{name}_zero_point", np.uint8(round(-low / step)))
        levels = editor.add("QuantizeLinear", [source, scale, zero_point], f"{name}_uint8")
        return Rounded(levels, scale, zero_point)

    def _by_token(self, source: ir.Value, *, is_gelu: bool) -> Rounded:
        """Round each token by its own largest value; standard operators alone, which every engine reads."""
        editor, name = self._editor, source.name
        offset = _GELU_MINIMUM if is_gelu else 0.0
        if is_gelu:
            shifted = editor.add("Add", [source, editor.constant("gelu_offset", np.float32(-offset))], f"{name}_up")
        magnitudes = shifted if is_gelu else editor.add("Abs", [source], f"{name}_magnitude")
        values = shifted if is_gelu else source
        largest = editor.largest_of_last_axis(magnitudes, f"{name}_largest")
        part = editor.constant(f"{name}_part", np.float32(1 / (_LEVELS if is_gelu else _HALF)))
        least = editor.constant("least_scale", np.float32(LEAST_SCALE))
        token_scale = editor.add("Mul", [largest, part], f"{name}_token_step")
        token_scale = editor.add("Max", [token_scale, least], f"{name}_token_scale")
        one = editor.constant("one", np.float32(1))
        zero_point = editor.constant(f"{name}_zero_point", np.uint8(0 if is_gelu else 128))
        unit = editor.add("Div", [values, token_scale], f"{name}_unit")
        levels = editor.add("QuantizeLinear", [unit, one, zero_point], f"{name}_uint8")
        return Rounded(levels, one, zero_point, token_scale, offset)
