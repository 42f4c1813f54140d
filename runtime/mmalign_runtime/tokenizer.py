"""From texts to token ids, as tokenizer.json and the bundle's TextSpec say. No transformers at run time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mmalign_runtime.errors import BundleFormatError, ItemError
from mmalign_runtime.spec import TextSpec

_NAME_LENGTH = 40


class TokenBatch(msgspec.Struct, frozen=True):
    """`input_ids` and `attention_mask`, both (B, L) int64; the mask is 1 on tokens and 0 on padding."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class TextTokenizer:
    """A tokenizer.json bound to one TextSpec. Safe to call from many threads: nothing changes after construction."""

    def __init__(self, tokenizer: Tokenizer, spec: TextSpec) -> None:
        tokenizer.enable_truncation(spec.context_length)
        length = spec.context_length if spec.padding == "fixed" else None
        tokenizer.enable_padding(pad_id=spec.pad_token_id, pad_token=spec.pad_token, length=length)
        self._tokenizer = tokenizer
        self.spec = spec

    @classmethod
    def from_file(cls, path: Path, spec: TextSpec) -> TextTokenizer:
        """Read a tokenizer.json. Raises BundleFormatError when it is none."""
        try:
            # `tokenizers` raises a bare Exception for every fault in the file.
            return cls(Tokenizer.from_file(str(path)), spec)
        except Exception as error:
            raise BundleFormatError(f"{path} is no tokenizer.json: {error}. Export the bundle again.") from error

    def encode(self, texts: Sequence[str], *, first_index: int = 0) -> TokenBatch:
        """Tokenize texts to one batch, (B, L) int64 each, L at most `context_length`; an empty text is allowed, and
        no texts at all give (0, 0).

        Raises ItemError, with the text's position counted from `first_index`, for a non-string or a lone surrogate.
        """
        for offset, text in enumerate(texts):
            check_text(text, first_index + offset)
        if not texts:  # numpy cannot infer L from no rows
            return TokenBatch(np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = np.array([e.ids for e in encodings], dtype=np.int64).reshape(len(texts), -1)  # (B, L)
        mask = np.array([e.attention_mask for e in encodings], dtype=np.int64).reshape(len(texts), -1)  # (B, L)
        return TokenBatch(ids, mask)


def check_text(text: object, index: int) -> None:
    """Raise ItemError unless `text` is a string that can be written as UTF-8."""
    if not isinstance(text, str):
        reason = f"seen {type(text).__name__}, expected str. Convert it."
        raise ItemError(index, type(text).__name__, "tokenize", reason)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = f"a lone surrogate at character {error.start}"
        reason = f"{where}: this is no Unicode text. Decode it with errors='replace'."
        raise ItemError(index, repr(text[:_NAME_LENGTH]), "tokenize", reason) from error
