"""A loss as a mean over rows: each of B items, against all B of the other side, by its row of cosines.

Taken a block of rows at a time it never holds (B, B), in either pass: a block's cosines are computed again on the way
back (Chen et al. 2016). Shapes: B batch, b rows of a block, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Cosines (b, B) float32, and which rows of the batch these are -> the losses of these rows, (b,).
RowLosses: TypeAlias = Callable[[Tensor, slice], Tensor]


def mean_over_rows(queries: Tensor, items: Tensor, row_losses: RowLosses, chunk_size: int = 0) -> Tensor:
    """Return the mean loss, a float32 scalar, of B queries against B items, (B, D) each.

    `chunk_size` rows are computed at a time; 0 computes all at once. Float32 whatever autocast says.
    """
    num_rows = len(queries)
    with torch.autocast(device_type=queries.device.type, enabled=False):
        queries, items = queries.float(), items.float()

        def sum_of(at: slice) -> Tensor:
            return row_losses(queries[at] @ items.T, at).sum()  # (b, B) -> (b,) -> ()

        if not 0 < chunk_size < num_rows:
            return sum_of(slice(0, num_rows)) / num_rows
        blocks = (slice(at, min(at + chunk_size, num_rows)) for at in range(0, num_rows, chunk_size))
        sums = [checkpoint(sum_of, at, use_reentrant=False, preserve_rng_state=False) for at in blocks]
        return torch.stack(sums).sum() / num_rows


def mean_both_ways(first: Tensor, second: Tensor, row_losses: RowLosses, chunk_size: int = 0) -> Tensor:
    """Return the mean of both directions, where a row's loss is the same function of its cosines in each."""
    forth = mean_over_rows(first, second, row_losses, chunk_size)
    return (forth + mean_over_rows(second, first, row_losses, chunk_size)) / 2
