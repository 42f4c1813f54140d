"""From texts to token ids, as tokenizer.json and the bundle's TextSpec say. No transformers at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mmalign_runtime.errors import BundleFormatError, EngineError, ItemError
from mmalign_runtime.once import Once
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.text_cleaning import Cleaner, SiglipCleaner, find_cleaner
from mmalign_runtime.text_prefix import Boundaries

_NAME_LENGTH = 40
_PROBE = "A probe, ünïcode 狗 and all."
# The tokenizer keeps what it cuts off, about 160 bytes a character: long texts go in a few at a time.
_CHARACTERS_AT_ONCE = 1_000_000
# Of a long text so many characters for each token of the context are tokenized, several times what most languages need,
# and so many times more where that did not fill the context.
_CHARACTERS_A_TOKEN = 16
_GROWTH = 8


class TokenBatch(msgspec.Struct, frozen=True):
    """`input_ids` and `attention_mask`, both (B, L) int64, the mask 1 on tokens and 0 on padding; and `truncated` (B,)
    bool, true where a text had more tokens than the context holds."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class TokenRow(msgspec.Struct, frozen=True):
    """The tokens of one text, not padded, and whether it had more than the context holds."""

    ids: list[int]
    mask: list[int]
    truncated: bool


class TextTokenizer:
    """A tokenizer.json bound to one TextSpec. Safe to call from many threads: nothing changes after construction."""

    def __init__(self, tokenizer: Tokenizer, spec: TextSpec, *, cleaner: Cleaner | None = None) -> None:
        """Bind a tokenizer, which is changed, to a spec. `cleaner` is the spec's, where the tokenizer was bound before.

        Raises BundleFormatError where the spec's cleaning needs a table that the tokenizer does not hold, or that is
        damaged.
        """
        self._cleaner = cleaner or _cleaner(tokenizer, spec)
        tokenizer.enable_truncation(spec.context_length, direction=spec.truncation_side)
        tokenizer.no_padding()  # whatever tokenizer.json says: rows are padded here, across texts tokenized apart
        self._tokenizer = tokenizer
        self._boundaries = Once(lambda: Boundaries(tokenizer))  # no short text needs them
        self.spec = spec

    def __reduce__(self) -> tuple[Callable[..., TextTokenizer], tuple[Tokenizer, TextSpec]]:
        # Worker processes are given one.
        return partial(TextTokenizer, cleaner=self._cleaner), (self._tokenizer, self.spec)

    @classmethod
    def from_bytes(cls, raw: bytes, name: str, spec: TextSpec) -> TextTokenizer:
        """Read the bytes of a tokenizer.json called `name`. Raises BundleFormatError when they are none."""
        try:
            found = cls(Tokenizer.from_buffer(raw), spec)
            found.batch(found._rows([_PROBE]))  # some faults show only here; not cleaned, which may need ftfy
        except BaseException as error:
            if not (isinstance(error, Exception) or _is_panic(error)):
                raise
            if isinstance(error, BundleFormatError):
                raise BundleFormatError(f"{name}: {error}") from error
            raise BundleFormatError(f"{name} is not a tokenizer.json: {error}. Export the bundle again.") from error
        return found

    def encode(self, texts: Sequence[str], *, first_index: int = 0) -> TokenBatch:
        """Tokenize texts to one batch, (B, L) int64 each, L at most `context_length`; no texts at all give
        (0, 0). An empty text is allowed: one padding token with mask 1 where the tokenizer adds no special ones. Texts
        are cleaned as the spec says, and normalised as tokenizer.json says.

        Raises ItemError, with the text's position counted from `first_index`, for a non-string, a lone surrogate or a
        text over `max_characters`; MissingDependencyError for a text that ftfy is to clean where that is not installed.
        """
        for offset, text in enumerate(texts):
            check_text(text, first_index + offset, self.spec)
        return self.batch(self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        """Tokenize texts that `check_text` has seen, all of them in bulk.

        Of a long text only a prefix is read where that cannot change the result: one whose tokens are those that the
        whole text begins with, and more than the context holds.
        """
        if self._cleaner is not None:
            texts = [self._cleaner(text) for text in texts]
        rows: dict[int, TokenRow] = {}
        rest = list(range(len(texts)))
        num_characters = _CHARACTERS_A_TOKEN * self.spec.context_length
        while rest:
            prefixes = [self._prefix(texts[index], num_characters) for index in rest]
            rows |= zip(rest, (row for group in _groups(prefixes) for row in self._rows(group)), strict=True)
            read = zip(rest, prefixes, strict=True)
            rest = [index for index, part in read if len(part) < len(texts[index]) and not rows[index].truncated]
            num_characters *= _GROWTH
        return [rows[index] for index in range(len(texts))]

    def padded_length(self, rows: Sequence[TokenRow]) -> int:
        """Return L of the batch that these rows would make."""
        if rows and self.spec.padding == "fixed":
            return self.spec.context_length
        return max((len(row.ids) for row in rows), default=0)

    def batch(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return rows as one batch, padded as the spec says."""
        return TokenBatch(
            self._padded([row.ids for row in rows], self.padded_length(rows), self.spec.pad_token_id),  # (B, L)
            self._padded([row.mask for row in rows], self.padded_length(rows), 0),  # (B, L)
            np.array([row.truncated for row in rows], np.bool_),  # (B,)
        )

    def _padded(self, rows: Sequence[Sequence[int]], length: int, value: int) -> NDArray[np.int64]:
        padded = np.full((len(rows), length), value, np.int64)  # (B, L)
        for row, tokens in zip(padded, rows, strict=True):
            start = 0 if self.spec.padding_side == "right" else length - len(tokens)
            row[start : start + len(tokens)] = tokens
        return padded

    def _prefix(self, text: str, num_characters: int) -> str:
        is_whole = len(text) <= num_characters or self.spec.truncation_side == "left"  # which keeps a text's end
        return text if is_whole else self._boundaries.get().prefix(text, num_characters)

    def _rows(self, texts: list[str]) -> list[TokenRow]:
        try:
            encodings = self._tokenizer.encode_batch(texts)
        except BaseException as error:
            if not (type(error) is Exception or _is_panic(error)):
                raise
            raise EngineError(f"the tokenizer failed: {error}. Run `mmalign verify`, or export again.") from error
        # A text without any token (the empty one, where no special tokens are added) is one padding token that is seen:
        # attention and pooling over nothing are not defined.
        empty = TokenRow([self.spec.pad_token_id], [1], truncated=False)
        return [TokenRow(e.ids, e.attention_mask, bool(e.overflowing)) if e.ids else empty for e in encodings]


def _cleaner(tokenizer: Tokenizer, spec: TextSpec) -> Cleaner | None:
    """Return the spec's cleaning, and take the normalizer from the tokenizer where the cleaning stands for it."""
    if spec.cleaning not in ("siglip_sentencepiece", "siglip_sentencepiece_cased"):
        return find_cleaner(spec.cleaning)
    found = SiglipCleaner(tokenizer, is_cased=spec.cleaning == "siglip_sentencepiece_cased")
    tokenizer.normalizer = None
    return found


def _is_panic(error: BaseException) -> bool:
    """Say whether an error is a panic of Rust code, which is not an Exception. Other faults are bare Exceptions."""
    return type(error).__module__ == "pyo3_runtime"


def check_text(text: object, index: int, spec: TextSpec) -> None:
    """Raise ItemError unless `text` is a string that can be written as UTF-8 and is inside the spec's limit."""
    if not isinstance(text, str):
        reason = f"seen {type(text).__name__}, expected str. {_fix(text)}"
        raise ItemError(index, type(text).__name__, "tokenize", reason)
    if len(text) > spec.max_characters:
        reason = (
            f"{len(text)} characters are more than the {spec.max_characters} that the bundle allows. Split the text."
        )
        raise ItemError(index, ascii(text[:_NAME_LENGTH]), "tokenize", reason)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = f"a lone surrogate at character {error.start}"
        reason = f"{where}: this is not Unicode text. Decode it with errors='replace'."
        raise ItemError(index, ascii(text[:_NAME_LENGTH]), "tokenize", reason) from error


def _fix(text: object) -> str:
    if text is None:
        return "Pass '' for an empty text, or leave the row out."
    return "Decode it: text.decode('utf-8')." if isinstance(text, bytes | bytearray) else "Convert it."


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield consecutive texts in lists of few characters, so that one long batch is not in memory at once."""
    group: list[str] = []
    num_characters = 0
    for text in texts:
        if group and num_characters + len(text) > _CHARACTERS_AT_ONCE:
            yield group
            group, num_characters = [], 0
        group.append(text)
        num_characters += len(text)
    if group:
        yield group
