"""Rounds products: what flows into them to eight unsigned bits, and their weights to eight signed bits, or to seven.

What flows in is rounded by scales fixed beforehand, or by each token's own. Weights are rounded so that what a product
gives moves least, and not each weight: one input channel after another; the error of each is made up for by the weights
of the channels that come after it and move with it (Frantar et al. 2022, "GPTQ", section 3.3). They have seven bits
where this processor cuts off sums of eight. Letters: K features in, N features out, R rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations
from mmalign_export.quantization.graph import GraphEditor
from mmalign_runtime.engine.eight_bits import SEVEN_BITS, saturates

EIGHT_BITS = 127
Granularity = Literal["static", "token"]

_LEVELS = 255
_HALF = 127
# No scale is zero, whatever a channel or a token held.
LEAST_SCALE = 1e-10
# The least value of GELU (at x = -0.7518), and below that of QuickGELU: there is nothing to tell apart under it.
_GELU_MINIMUM = -0.17
# Of the mean of the diagonal: keeps the inverse finite where rows are fewer than channels.
_DAMPING = 0.01
_BLOCK = 64


def largest_level() -> int:
    """Return the largest level of a weight; the smallest is its negative."""
    return SEVEN_BITS if saturates() else EIGHT_BITS


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


class Columns(msgspec.Struct, frozen=True):
    """A weight in eight bits: `levels` (K, N) and a step a column, (N,)."""

    levels: NDArray[np.int8]
    steps: NDArray[np.float32]


class ColumnRounder:
    """Rounds weights, each once: recipes have most of them in common."""

    def __init__(self, activations: Mapping[str, Activations]) -> None:
        self._activations = activations
        self._known: dict[bytes, Columns] = {}

    def round(self, weight: NDArray[np.float32], source: str, scales: NDArray[np.float32]) -> Columns:
        """Return a weight (K, N) of what `source` holds, its channels divided by `scales` (K,)."""
        key = hashlib.sha256(source.encode() + scales.tobytes() + weight.tobytes()).digest()
        if key not in self._known:
            rows = self._activations[source].rows / scales
            steps = np.maximum(np.abs(weight).max(axis=0) / largest_level(), LEAST_SCALE).astype(np.float32)  # (N,)
            self._known[key] = Columns(rounded_columns(weight, steps, rows), steps)
        return self._known[key]


def rounded_columns(
    weight: NDArray[np.float32], steps: NDArray[np.float32], rows: NDArray[np.float32]
) -> NDArray[np.int8]:
    """Return a weight's levels (K, N), given its steps (N,) and sample rows (R, K) of what it multiplies."""
    order = np.argsort(-np.square(rows).sum(axis=0))  # the channels that weigh most first: all others make up for them
    left, factor = weight[order].astype(np.float32), _factor(rows[:, order])
    levels, largest = np.empty(weight.shape, np.int8), largest_level()
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for row in range(start, stop):
            found = np.clip(np.round(left[row] / steps), -largest, largest)
            levels[order[row]] = found.astype(np.int8)
            errors[row - start] = (left[row] - found * steps) / factor[row, row]
            left[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], errors[row - start])
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return levels


def _factor(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the upper triangle U, (K, K), with U^T U the inverse of the rows' second moments."""
    moments = rows.T.astype(np.float64) @ rows
    moments[np.diag_indices_from(moments)] += _DAMPING * max(float(np.trace(moments)) / len(moments), LEAST_SCALE)
    # Cholesky from the last channel to the first gives an upper triangle, whose inverse is the one that is sought.
    upper = torch.linalg.cholesky(torch.from_numpy(moments).flip(0, 1)).flip(0, 1)
    factor = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
    found: NDArray[np.float32] = factor.float().numpy()
    return found
