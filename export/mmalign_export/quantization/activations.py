"""What flows into each product of a transformer on calibration texts: the ranges that static scales are made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, helper

from mmalign_runtime.spec import TextInputs
from mmalign_runtime.tokenizer import TokenBatch

# Enough rows for a percentile of a smoothed tensor; all texts count for the extremes.
_NUM_ROWS = 1024


class Activations(msgspec.Struct, frozen=True):
    """One tensor over all calibration tokens: extremes by channel, `low` and `high` (K,), and sample `rows` (R, K)."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    rows: NDArray[np.float32]

    def reach(self) -> NDArray[np.float32]:
        """Return the largest magnitude of each channel, (K,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def record_activations(
    model: ModelProto, tensors: Iterable[str], batches: Sequence[TokenBatch], inputs: TextInputs
) -> dict[str, Activations]:
    """Run the model on token batches and return what each of its `tensors`, (B, L, K), held; padding left out."""
    names = sorted(set(tensors))
    session = _watched(model, names)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    extremes: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    num_tokens = 0
    for batch in batches:
        is_token = batch.attention_mask.astype(bool)  # (B, L)
        feeds = inputs.feeds(batch.input_ids, batch.attention_mask)
        for name, values in zip(names, session.run(names, feeds), strict=True):
            rows = values[is_token]  # (T, K)
            low, high = rows.min(axis=0), rows.max(axis=0)
            if name in extremes:
                low, high = np.minimum(low, extremes[name][0]), np.maximum(high, extremes[name][1])
            extremes[name] = (low, high)
            if num_tokens < _NUM_ROWS:
                found[name].append(rows[: _NUM_ROWS - num_tokens].copy())
        num_tokens += int(is_token.sum())
    return {name: Activations(*extremes[name], np.concatenate(found[name])) for name in names}


def _watched(model: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    have = {output.name for output in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    return ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])


def smoothing_scales(reach: NDArray[np.float32], weight: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Return by how much each of K channels is divided before it is rounded, its weights (K, N) multiplied by as much.

    Channels with outliers hand part of their range to the weights, which bear it: SmoothQuant (Xiao et al. 2023),
    equation 4, with alpha = `strength`; scaled to a geometric mean of 1.
    """
    floor = 1e-5
    scales = np.maximum(reach, floor) ** strength / np.maximum(np.abs(weight).max(axis=1), floor) ** (1 - strength)
    centred: NDArray[np.float32] = (scales / np.exp(np.log(scales).mean())).astype(np.float32)  # (K,)
    return np.maximum(centred, np.float32(1e-3))
