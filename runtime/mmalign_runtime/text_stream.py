"""Texts to vectors, in the caller's order: tokenized once a window, run by length in batches of a bounded cost.

A tower's work grows with the longest text of its batch. Texts of like length share a batch, so that little of it is
padding; how far a text may travel for that is bounded by the window. Where the engine gains by it, batches of a window
run at once.
Shapes: B batch, L tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from mmalign_runtime.errors import ItemError
from mmalign_runtime.streaming import OnError, StreamedItem, Vectors, check_settings

if TYPE_CHECKING:
    from mmalign_runtime.tokenizer import TokenBatch, TokenRow

# How many batches a window holds, where there are as many texts.
WINDOW_BATCHES = 16
# Texts of more characters than this are not waited for: a window must not fill the memory.
_WINDOW_CHARACTERS = 1_000_000
_THREAD_NAME = "mmalign-texts"


class TextStages(Protocol):
    """What becomes of texts, one stage after the other."""

    token_budget: int | None
    num_runs: int

    def check(self, text: str, index: int) -> None:
        """Raise ItemError when a text cannot be tokenized."""

    def tokenize(self, texts: Sequence[str]) -> Sequence[TokenRow]:
        """Return the tokens of checked texts."""

    def padded_length(self, rows: Sequence[TokenRow]) -> int:
        """Return L of the batch that these rows would make."""

    def batch(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return rows as one batch (B, L)."""

    def tower(self, tokens: TokenBatch) -> Vectors:
        """Return (B, D) for tokens (B, L)."""


def stream_texts(
    texts: Iterable[str], stages: TextStages, batch_size: int, on_error: OnError
) -> Iterator[StreamedItem]:
    """Yield the texts' vectors, in order; no batch has more than `batch_size` texts.

    Raises ValueError at once, before the first text, for settings that make no sense.
    """
    check_settings(batch_size, on_error)
    return _stream(texts, stages, batch_size, on_error)


def _stream(texts: Iterable[str], stages: TextStages, batch_size: int, on_error: OnError) -> Iterator[StreamedItem]:
    for window in _windows(texts, batch_size):
        errors: dict[int, ItemError] = {}
        for index, text in window:
            try:
                stages.check(text, index)
            except ItemError as error:
                if on_error == "raise":
                    raise
                errors[index] = error
        good = [(index, text) for index, text in window if index not in errors]
        tokenized = stages.tokenize([text for _, text in good])
        rows = dict(zip((index for index, _ in good), tokenized, strict=True))
        vectors = _embed(rows, stages, batch_size)
        for index, _ in window:
            truncated = index in rows and rows[index].truncated
            yield StreamedItem(index, vectors.get(index), errors.get(index), index == window[-1][0], truncated)


def _windows(texts: Iterable[str], batch_size: int) -> Iterator[list[tuple[int, str]]]:
    """Yield numbered texts in windows of whole batches. Where a batch is one text, nothing is gained by waiting."""
    numbered = enumerate(texts)
    num_batches = WINDOW_BATCHES if batch_size > 1 else 1
    window: list[tuple[int, str]] = []
    num_characters = 0
    while True:
        try:
            batch = list(islice(numbered, batch_size))
        except Exception:  # whatever the source raises, what came before it is not lost
            if window:
                yield window
            raise
        window += batch
        num_characters += sum(len(text) for _, text in batch if isinstance(text, str))
        is_full = len(window) >= num_batches * batch_size or num_characters >= _WINDOW_CHARACTERS
        if window and (is_full or not batch):
            yield window
            window, num_characters = [], 0
        if not batch:
            return


def _embed(rows: dict[int, TokenRow], stages: TextStages, batch_size: int) -> dict[int, Vectors]:
    batches = _batches(rows, stages, batch_size)

    def run(batch: Sequence[int]) -> Vectors:
        return stages.tower(stages.batch([rows[index] for index in batch]))  # (B, D)

    num_runs = min(stages.num_runs, len(batches))
    if num_runs <= 1:
        found = [run(batch) for batch in batches]
    else:
        with ThreadPoolExecutor(num_runs, _THREAD_NAME) as executor:
            found = list(executor.map(run, batches))
    vectors: dict[int, Vectors] = {}
    for batch, rows_of_vectors in zip(batches, found, strict=True):
        vectors |= zip(batch, rows_of_vectors, strict=True)
    return vectors


def _batches(rows: dict[int, TokenRow], stages: TextStages, batch_size: int) -> list[list[int]]:
    # Longest first: what the tower needs for it is then there for all others, and the last to end are short.
    order = sorted(rows, key=lambda index: -len(rows[index].ids))
    batches = []
    while order:
        size = _affordable(rows[order[0]], stages, batch_size)
        batches.append(order[:size])
        order = order[size:]
    return batches


def _affordable(longest: TokenRow, stages: TextStages, batch_size: int) -> int:
    if stages.token_budget is None:
        return batch_size
    return max(1, min(batch_size, stages.token_budget // max(1, stages.padded_length([longest]))))
