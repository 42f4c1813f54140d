"""One side of a step, of which `inputs` makes whole steps: what either side gives, and the texts.

Shapes: B batch, b rows of a share, M captions, F features, L text tokens, H of the encoder, n regions, R channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec
import torch
from torch import Tensor

from mmalign.data import Pair
from mmalign.features.token_states import TokenStates
from mmalign.model.chunks import Sharing
from mmalign.optim import StepPlan
from mmalign_runtime.tokenizer import TextTokenizer


class Features(msgspec.Struct, frozen=True):
    """Features of a frozen tower, (B, F): its projection is all that runs on them. `regions` (B, n, R) of images that
    texts look at.
    """

    values: Tensor
    regions: Tensor | None = None


class TowerInputs(msgspec.Struct, frozen=True):
    """What a tower that learns is called with: pixel_values (b, 3, S, S), or ids and mask, (b, L) each."""

    tensors: tuple[Tensor, ...]


class TokenInputs(TowerInputs, frozen=True):
    """Token vectors (b, L, H) of a frozen encoder and their mask (b, L): a pool that learns is called with them."""


SideInputs: TypeAlias = Features | TowerInputs
_WHOLE = Sharing()


class Side(Protocol):
    """One side of the steps: images or texts."""

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> SideInputs:
        """Return the inputs of the plan's rows, each text the caption drawn for it."""
        ...


class CachedTexts:
    """Features of a frozen text tower, (M, F), and for each pair the rows of its captions."""

    def __init__(self, features: Tensor, rows_of_pair: Sequence[Sequence[int]]) -> None:
        self._features = features
        self._rows_of_pair = rows_of_pair

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> Features:
        """Return (B, F)."""
        rows = [self._rows_of_pair[row][caption] for row, caption in zip(plan.rows, captions, strict=True)]
        return Features(self._features[torch.tensor(rows)])


class LiveTexts:
    """Captions tokenized anew at each step."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: TextTokenizer, sharing: Sharing = _WHOLE) -> None:
        self._captions = [pair.captions for pair in pairs]  # not the pairs: their images would go to every worker
        self._tokenizer = tokenizer
        self._sharing = sharing

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> TowerInputs:
        """Return ids and mask, (b, L) each."""
        texts = [self._captions[row][caption] for row, caption in zip(plan.rows, captions, strict=True)]
        tokens = self._tokenizer.encode(texts)  # all: padded as the longest is, so that dropout draws the same masks
        share = self._sharing.rows(len(texts))
        return TowerInputs((torch.from_numpy(tokens.input_ids[share]), torch.from_numpy(tokens.attention_mask[share])))


class CachedTokens:
    """Token vectors of a frozen encoder, of which a pool that learns makes features, and each pair's rows of them."""

    def __init__(self, tokens: TokenStates, rows_of_pair: Sequence[Sequence[int]], sharing: Sharing = _WHOLE) -> None:
        self._tokens = tokens
        self._rows_of_pair = rows_of_pair
        self._sharing = sharing

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> TokenInputs:
        """Return token vectors (b, L, H) and mask (b, L)."""
        rows = [self._rows_of_pair[row][caption] for row, caption in zip(plan.rows, captions, strict=True)]
        return TokenInputs(self._tokens.padded(rows, self._sharing.rows(len(rows))))
