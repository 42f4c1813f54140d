"""What flows into each product of a transformer at calibration: the ranges that static scales are made from.

They are taken from single images and texts, as a tower is fed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, helper

from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import TextInputs
from mmalign_runtime.tokenizer import TokenBatch

# Enough rows for a percentile of a smoothed tensor, taken evenly from all items; all rows count for the extremes.
_NUM_ROWS = 1024


class Item(msgspec.Struct, frozen=True):
    """One image or text, batch of 1. `is_token` (L,) says which of a text's positions count; None where all do."""

    feeds: Feeds
    is_token: NDArray[np.bool_] | None = None

    def counted(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows (R, K) that count of an inner tensor (..., K), padding left out whatever the layout."""
        rows = values.reshape(-1, values.shape[-1])
        return rows[self.is_token] if self.is_token is not None and len(rows) == len(self.is_token) else rows


def image_items(images: Sequence[NDArray[np.float32]], input_name: str) -> tuple[Item, ...]:
    """Return prepared images, (1, 3, H, W) each, as items."""
    return tuple(Item({input_name: image}) for image in images)


def text_items(batches: Sequence[TokenBatch], inputs: TextInputs, *, is_padded: bool) -> tuple[Item, ...]:
    """Return each text of token batches as an item.

    `is_padded` is true for a tower that is always fed its whole context: padding then stands where it will stand. It
    counts where the tower takes no mask: it carries data there. Other towers are fed a text's own tokens alone.
    """
    found = []
    for batch in batches:
        for ids, mask in zip(batch.input_ids[:, None], batch.attention_mask[:, None], strict=True):  # (1, L) each
            is_token = mask[0].astype(bool)  # (L,)
            if is_padded:
                found.append(Item(inputs.feeds(ids, mask), is_token if inputs.attention_mask else None))
            else:
                found.append(Item(inputs.feeds(ids[:, is_token], mask[:, is_token])))
    return tuple(found)


class Activations(msgspec.Struct, frozen=True):
    """One tensor over all calibration items: extremes by channel, `low` and `high` (K,), and sample `rows` (R, K).

    `most_rows` is the largest number of rows that an item had: 1 where a tensor holds pooled features.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    rows: NDArray[np.float32]
    most_rows: int

    def reach(self) -> NDArray[np.float32]:
        """Return the largest magnitude of each channel, (K,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def record_activations(model: ModelProto, tensors: Iterable[str], items: Sequence[Item]) -> dict[str, Activations]:
    """Run the model on items and return what each of its `tensors`, (..., K), held; padding left out."""
    names = sorted(set(tensors))
    if not names:
        return {}
    session = watched(model, names)
    found: dict[str, Activations] = {}
    sampled: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    num_sampled = -(-_NUM_ROWS // len(items))
    for item in items:
        for name, values in zip(names, session.run(names, dict(item.feeds)), strict=True):
            rows = item.counted(values)
            step = -(-len(rows) // num_sampled)
            sampled[name].append(rows[step // 2 :: step].copy())
            found[name] = _joined(found.get(name), rows)
    return {name: msgspec.structs.replace(found[name], rows=np.concatenate(sampled[name])) for name in names}


def _joined(before: Activations | None, rows: NDArray[np.float32]) -> Activations:
    low, high, count = rows.min(axis=0), rows.max(axis=0), len(rows)
    if before is not None:
        low, high = np.minimum(low, before.low), np.maximum(high, before.high)
        count = max(count, before.most_rows)
    return Activations(low, high, rows[:0], count)


def watched(model: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Load a model with some of its inner tensors as outputs too."""
    copied = deepcopy(model)
    have = {output.name for output in copied.graph.output}
    copied.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    return ort.InferenceSession(copied.SerializeToString(), providers=["CPUExecutionProvider"])


def smoothing_scales(reach: NDArray[np.float32], weight: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Return by how much each of K channels is divided before it is rounded, its weights (K, N) multiplied by as much.

    Channels with outliers hand part of their range to the weights, which bear it: SmoothQuant (Xiao et al. 2023),
    equation 4, with alpha = `strength`; scaled to a geometric mean of 1.
    """
    floor = 1e-5
    scales = np.maximum(reach, floor) ** strength / np.maximum(np.abs(weight).max(axis=1), floor) ** (1 - strength)
    centred: NDArray[np.float32] = (scales / np.exp(np.log(scales).mean())).astype(np.float32)  # (K,)
    return np.maximum(centred, np.float32(1e-3))
