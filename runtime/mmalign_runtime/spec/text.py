"""The way from a text to token ids. Shapes: B batch, L tokens."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Cleaning = Literal[
    "none",
    "clip",
    "clip_cased",
    "clip_canonical",
    "siglip",
    "siglip_sentencepiece",
    "siglip_sentencepiece_cased",
]
End = Literal["right", "left"]


class TextSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way from a text to `input_ids` and `attention_mask` (B, L) int64.

    Attributes:
        cleaning: What is done to a text before tokenizer.json sees it. The two of sentencepiece take the place of
            tokenizer.json's normalizer.
        context_length: Tokens that the tower reads, special tokens included. Longer texts are truncated.
        truncation_side: The end that is cut. Special tokens are kept.
        padding: "longest" pads to the longest text of a batch, "fixed" always to `context_length`.
        padding_side: The end that is padded.
        pad_token_id: Id of the padding token.
        pad_token: The padding token.
        max_characters: Characters that a text may have. Longer ones are refused before they are tokenized; the limit
            does not move vectors.
    """

    cleaning: Cleaning = "none"
    context_length: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 128
    truncation_side: End = "right"
    padding: Literal["longest", "fixed"] = "longest"
    padding_side: End = "right"
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    pad_token: str = "[PAD]"
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000
