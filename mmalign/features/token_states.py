"""The token vectors of texts, of a frozen encoder over which a pool learns: kept on disk in float16 without padding.

Shapes: M texts, B batch, L text tokens, T tokens of all texts, H of the encoder, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor, nn

from mmalign.features.cache import MappedRows
from mmalign.towers.text import TextTower, tokens_of


class TokenStates(msgspec.Struct, frozen=True, eq=False):
    """Token vectors of M texts, (T, H) float16: those of text i are `lengths[i]` rows from `starts[i]` on."""

    values: MappedRows
    starts: Tensor
    lengths: Tensor

    def padded(self, texts: Sequence[int], share: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return token vectors (B, L, H) float32 and mask (B, L) of a share of texts, L that of the longest of all."""
        chosen = torch.tensor(texts)
        lengths = self.lengths[chosen]
        positions = torch.arange(int(lengths.max()))  # (L,)
        mask = positions < lengths[share, None]  # (B, L)
        rows = self.starts[chosen[share], None] + torch.where(mask, positions, 0)  # padding repeats the first token
        return self.values[rows].float(), mask.long()


class TokensOfTower(nn.Module):
    """A text tower whose output is its token vectors, without padding: ids and mask (B, L) -> (T, H), text by text."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.encoder = tower.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the token vectors."""
        return tokens_of(self.encoder, input_ids, attention_mask)[attention_mask.bool()]


class PoolOfTower(nn.Module):
    """What a text tower does after its encoder: token vectors (B, L, H) and mask (B, L) -> (B, F)."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the features."""
        return self.tower.pooled(hidden, attention_mask)
