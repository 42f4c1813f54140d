"""Rounds a product's weights to eight signed bits (or seven), so that what it gives moves least and not each weight.

Weights are rounded one input channel after another; the error of each is made up for by the weights of the channels
that come after it and move with it (Frantar et al. 2022, "GPTQ", section 3.3). Letters: K features in, N features out,
R rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations
from mmalign_export.quantization.rounding import LEAST_SCALE
from mmalign_export.quantization.weight_levels import largest_level

# Of the mean of the diagonal: keeps the inverse finite where rows are fewer than channels.
_DAMPING = 0.01
_BLOCK = 64


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
