"""Token ids to try a text tower with: made of the tokenizer's own tokens, whatever its language or vocabulary."""

from __future__ import annotations

import msgspec
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign_runtime.spec import TextSpec

# Some tokenizers know a handful of words alone; their own tokens, decoded, come after these.
_TEXTS = ("a", "the", "1")
_MAX_DECODED = 100


class ProbeTexts(msgspec.Struct, frozen=True):
    """What a tokenizer puts before and after each text, two ordinary tokens, and how many fit into the context."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    tokens: tuple[int, int]
    room: int

    def row(self, num_tokens: int, *, last_differs: bool = False) -> list[int]:
        """Return the ids of a text of `num_tokens` ordinary tokens."""
        first, second = self.tokens
        inner = [first] * num_tokens
        if last_differs:
            inner[-1] = second
        return [*self.before, *inner, *self.after]

    def full_row(self) -> list[int]:
        """Return the ids of a text that fills the context."""
        inner = [self.tokens[at % 2] for at in range(self.room)]
        return [*self.before, *inner, *self.after]


def probe_texts(tokenizer: Tokenizer, spec: TextSpec) -> ProbeTexts:
    """Return what to try a tower with. Raises ConfigError when no token of a text has room in the context."""
    ids = sorted(set(tokenizer.get_vocab().values()) - _special_ids(tokenizer))
    if len(ids) < 2:
        raise ConfigError(
            f"the tokenizer has {len(ids)} tokens beside special ones, so all texts are alike to it. Set "
            "text_tower.tokenizer to the one that the tower was trained with."
        )
    before, after = _template(tokenizer, ids)
    room = spec.context_length - len(before) - len(after)
    if room < 1:
        raise ConfigError(
            f"text.context_length is {spec.context_length}, and the tokenizer adds {len(before) + len(after)} tokens "
            "to every text: nothing of a text would be read. Raise it."
        )
    # From the middle: the ends of a vocabulary hold tokens that no training has seen.
    middle = len(ids) // 2
    return ProbeTexts(before, after, (ids[middle - 1], ids[middle]), room)


def batch_of(rows: list[list[int]], length: int, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (B, L) int64, of rows padded to `length`."""
    ids = torch.full((len(rows), length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return ids, mask


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    return {at for at, token in tokenizer.get_added_tokens_decoder().items() if token.special}


def _template(tokenizer: Tokenizer, ids: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer puts before and after a text."""
    decoded = (tokenizer.decode([at]) for at in ids[:_MAX_DECODED])
    for text in (*_TEXTS, *decoded):
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        whole = tokenizer.encode(text).ids
        start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), None)
        if plain and start is not None:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    raise ConfigError(
        "the tokenizer gives no token for any of its own words. Set text_tower.tokenizer to the one that the tower was "
        "trained with."
    )
