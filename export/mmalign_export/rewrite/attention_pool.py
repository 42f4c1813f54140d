"""Rewrites the attention pooling of open_clip's ResNets: the one query whose result is read, and no others.

Shapes: B batch, D embedding, H' and W' cells.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmalign_export.rewrite.attention import attend, scaled_linear, split_heads


class FirstTokenPool(nn.Module):
    """open_clip's AttentionPool2d, (B, D, H', W') -> (B, D'): the mean token attends to all, and it alone."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        queries = cast("nn.Linear", pool.q_proj)
        self.num_heads = cast("int", pool.num_heads)
        self.positional_embedding = cast("nn.Parameter", pool.positional_embedding)
        self.q_proj = scaled_linear(queries.weight, queries.bias, (queries.out_features // self.num_heads) ** -0.5)
        self.k_proj, self.v_proj = cast("nn.Linear", pool.k_proj), cast("nn.Linear", pool.v_proj)
        self.c_proj = cast("nn.Linear", pool.c_proj)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled vector of each picture."""
        cells = x.flatten(2).transpose(1, 2)  # (B, L - 1, D)
        tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.positional_embedding  # (B, L, D)
        parts = (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens))
        attended = attend(*(split_heads(part, self.num_heads) for part in parts))  # (B, 1, D)
        return cast("Tensor", self.c_proj(attended[:, 0]))


def write_out_pool(module: nn.Module) -> bool:
    """Replace, in place, the attention pooling of a ResNet of open_clip; say whether it has one."""
    pool = getattr(module, "attnpool", None)
    if pool is None:
        return False
    module.attnpool = FirstTokenPool(pool)
    return True
