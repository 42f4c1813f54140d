"""SigLIP's texts as transformers' `SiglipTokenizer` gives them to sentencepiece, and as sentencepiece normalises them.

Special tokens in a text stay and cut it into parts. Each part loses ASCII punctuation and runs of whitespace, goes
through the table of tokenizer.json's `Precompiled` normalizer, and loses the spaces that the table made beside others
and at its end. A mark for the space before the first word is put in front, so that tokenizer.json need not.
"""

from __future__ import annotations

import re
import string

import msgspec
from tokenizers import Tokenizer

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.text_charsmap import Charsmap

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What sentencepiece writes for a space; transformers puts one before each text.
SPACE_MARK = "▁"


class _Table(msgspec.Struct, tag="Precompiled"):
    """A `Precompiled` normalizer; msgspec reads base64 as bytes."""

    precompiled_charsmap: bytes


class SiglipCleaner:
    """What is done to SigLIP's texts before a tokenizer, whose own normalizer is not run besides."""

    def __init__(self, tokenizer: Tokenizer, *, is_cased: bool) -> None:
        """Read the table and the special tokens. Raises BundleFormatError where tokenizer.json has another normalizer
        than `Precompiled` or none, or the table is damaged.
        """
        self._charsmap = _charsmap(tokenizer)
        self._is_cased = is_cased
        tokens = (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(longest_first)})" if longest_first else "(?!)")

    def __call__(self, text: str) -> str:
        """Return what the tokenizer's pre-tokenizer is to see of a text."""
        parts = self._special.split(SPACE_MARK + text.replace(SPACE_MARK, " "))
        parts[::2] = map(self._normalised, parts[::2])  # the others are the tokens
        return "".join(parts)

    def _normalised(self, part: str) -> str:
        plain = canonical(part if self._is_cased else part.lower())
        if self._charsmap is None:
            return plain.rstrip(f" {SPACE_MARK}")
        return re.sub(" {2,}", " ", self._charsmap.replace(plain)).rstrip(f" {SPACE_MARK}")


def canonical(text: str) -> str:
    """Return a text without ASCII punctuation, with one space for each run of whitespace and none at its ends."""
    return re.sub(r"\s+", " ", text.translate(NO_PUNCTUATION)).strip()


def _charsmap(tokenizer: Tokenizer) -> Charsmap | None:
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return None
    try:
        return Charsmap(msgspec.json.decode(normalizer.__getstate__(), type=_Table).precompiled_charsmap)
    except msgspec.ValidationError as error:
        raise BundleFormatError(
            "`cleaning` says that sentencepiece's table is applied before tokenizer.json, whose normalizer holds it, "
            f"and is to be 'Precompiled' or none: {error}. Choose another cleaning, or export the bundle again."
        ) from error
