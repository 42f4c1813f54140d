"""A tower over a batch larger than memory: exact gradients of the whole batch, a chunk at a time (GradCache).

As in Gao et al. 2021 each chunk runs twice: forward without keeping activations, and again when the loss of the whole
batch has given its gradient (torch's checkpointing, Chen et al. 2016). Dropout draws the same masks both times. What a
layer computes over its batch, as BatchNorm does in training, is computed over a chunk; its running statistics are
updated once. Heads and losses see the whole batch. Shapes: B batch, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def run_in_chunks(tower: nn.Module, inputs: tuple[Tensor, ...], chunk_size: int) -> Tensor:
    """Return the features (B, F) of inputs (B, ...), at most `chunk_size` at a time, or all at once where it is 0."""
    if not 0 < chunk_size < len(inputs[0]):
        return cast("Tensor", tower(*inputs))

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unchanged_statistics(tower)

    num_chunks = math.ceil(len(inputs[0]) / chunk_size)  # as even as can be: BatchNorm fails on a last one of one item
    chunks = zip(*(torch.tensor_split(tensor, num_chunks) for tensor in inputs), strict=True)
    return torch.cat(
        [checkpoint(tower, *chunk, use_reentrant=False, context_fn=contexts) for chunk in chunks]
    )  # (B, F)


@contextmanager
def _unchanged_statistics(tower: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while a chunk runs for the second time."""
    layers = [layer for layer in tower.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        # Without weight and without a count nothing moves; without statistics other tensors would be saved than before.
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
