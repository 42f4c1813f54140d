"""The way from a text to token ids. Shapes: B batch, L tokens."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Cleaning = Literal["none", "clip", "clip_cased", "clip_canonical", "siglip"]
End = Literal["right", "left"]


class TextSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way from a text to `input_ids` and `attention_mask` (B, L) int64.

    Cleaned as `cleaning` names it, before tokenizer.json. Truncated to `context_length` tokens at `truncation_side`,
    special tokens kept; padded at `padding_side` with `pad_token_id` to the longest of the batch, or always to
    `context_length` when `padding` is "fixed". A text of more than `max_characters` is refused before it is tokenized:
    the limit moves no vector.
    """

    cleaning: Cleaning = "none"
    context_length: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 128
    truncation_side: End = "right"
    padding: Literal["longest", "fixed"] = "longest"
    padding_side: End = "right"
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    pad_token: str = "[PAD]"
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000
