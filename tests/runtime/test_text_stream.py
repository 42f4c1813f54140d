"""The stream of texts, with stages that are told what to do: a text has as many tokens as characters, and one more."""

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.errors import ItemError
from mmalign_runtime.streaming import StreamedItem, Vectors
from mmalign_runtime.text_stream import WINDOW_BATCHES, stream_texts
from mmalign_runtime.tokenizer import TokenBatch, TokenRow

ATOL = 1e-6  # another batch sums float32 in another order


class FakeStages:
    """Stages that give each text its length as its vector, and remember what they were called with."""

    def __init__(self, token_budget: int | None = None, fixed_length: int = 0, num_runs: int = 1) -> None:
        self.token_budget = token_budget
        self.num_runs = num_runs
        self.fixed_length = fixed_length
        self.tokenized: list[int] = []
        self.batches: list[list[int]] = []

    def check(self, text: object, index: int) -> None:
        if not isinstance(text, str):
            raise ItemError(index, "text", "tokenize", "no text")

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        self.tokenized.append(len(texts))
        return [TokenRow([1] * (len(text) + 1), [1] * (len(text) + 1), False) for text in texts]

    def padded_length(self, rows: Sequence[TokenRow]) -> int:
        return self.fixed_length or max(len(row.ids) for row in rows)

    def batch(self, rows: Sequence[TokenRow]) -> TokenBatch:
        self.batches.append([len(row.ids) for row in rows])
        ids = np.zeros((len(rows), self.padded_length(rows)), np.int64)
        mask = np.array([[i < len(row.ids) for i in range(ids.shape[1])] for row in rows], np.int64)
        return TokenBatch(ids, mask, np.zeros(len(rows), np.bool_))

    def tower(self, tokens: TokenBatch) -> Vectors:
        return (tokens.attention_mask.sum(axis=1, keepdims=True) - 1).astype(np.float32)


def run(stages: FakeStages, texts: object, batch_size: int, on_error: str = "raise") -> list[StreamedItem]:
    return list(stream_texts(texts, stages, batch_size, on_error))  # type: ignore[arg-type]


def lengths_of(results: Sequence[StreamedItem]) -> list[int]:
    return [int(result.vector[0]) for result in results if result.vector is not None]


@pytest.fixture
def texts() -> list[str]:
    random = np.random.default_rng(0)
    return ["x" * int(length) for length in random.integers(0, 60, 1000)]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 5000])
@pytest.mark.parametrize("token_budget", [None, 1, 100])
def test_vectors_come_in_the_callers_order(texts: list[str], batch_size: int, token_budget: int | None) -> None:
    stages = FakeStages(token_budget)
    results = run(stages, texts, batch_size)
    assert [result.index for result in results] == list(range(len(texts)))
    assert lengths_of(results) == [len(text) for text in texts]
    assert sum(map(len, stages.batches)) == len(texts)


def test_batches_hold_like_lengths_and_keep_to_both_bounds(texts: list[str]) -> None:
    stages = FakeStages(token_budget=200)
    run(stages, texts, 32)
    for batch in stages.batches:
        assert len(batch) <= 32
        assert len(batch) == 1 or len(batch) * max(batch) <= 200
    padded = sum(len(batch) * max(batch) for batch in stages.batches)
    assert padded < 1.1 * sum(map(sum, stages.batches))


def test_a_text_over_the_budget_runs_alone() -> None:
    stages = FakeStages(token_budget=10)
    run(stages, ["x" * 50, "x", "x" * 40, "y"], 4)
    assert stages.batches == [[51], [41], [2, 2]]


def test_fixed_padding_counts_what_is_padded() -> None:
    stages = FakeStages(token_budget=40, fixed_length=20)
    run(stages, ["x"] * 8, 4)
    assert stages.batches == [[2, 2]] * 4


def test_texts_are_tokenized_once_a_window(texts: list[str]) -> None:
    stages = FakeStages()
    results = run(stages, texts, 16)
    size = 16 * WINDOW_BATCHES
    assert stages.tokenized == [size] * (len(texts) // size) + [len(texts) % size]
    assert [result.index + 1 for result in results if result.ends_window] == [256, 512, 768, 1000]


@pytest.mark.parametrize(("batch_size", "window"), [(1, 1), (4, 4 * WINDOW_BATCHES)])
def test_the_source_is_read_one_window_at_a_time(batch_size: int, window: int) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(len(taken))
            yield "a dog"

    stream = stream_texts(endless(), FakeStages(), batch_size, "raise")
    assert not taken
    for number in range(2 * window):
        assert next(stream).index == number
        assert len(taken) == (number // window + 1) * window


def test_long_texts_are_not_gathered() -> None:
    stages = FakeStages()
    run(stages, ["x" * 300_000] * 9, 2)
    assert stages.tokenized == [4, 4, 1]


def test_bad_texts_cost_themselves_alone() -> None:
    stages = FakeStages()
    texts = ["aaa", None, "a", None, "aa"]
    with pytest.raises(ItemError, match=r"item 1 .*no text"):
        run(FakeStages(), texts, 2)
    results = run(stages, texts, 2, "skip")
    assert [(result.index, result.error is None) for result in results] == [
        (0, True),
        (1, False),
        (2, True),
        (3, False),
        (4, True),
    ]
    assert lengths_of(results) == [3, 1, 2]
    assert stages.batches == [[4, 3], [2]]
    assert all(result.error is not None for result in run(FakeStages(), [None, None], 2, "skip"))


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def breaks() -> Iterator[str]:
        yield from ["a", "b", "c", "d"]
        raise ConnectionError("the source went away")

    seen: list[int] = []
    with pytest.raises(ConnectionError, match="went away"):
        seen.extend(result.index for result in stream_texts(breaks(), FakeStages(), 2, "skip"))
    assert seen == [0, 1, 2, 3]


def test_a_real_towers_vectors_are_those_of_each_text_alone(embedder: Embedder) -> None:
    random = np.random.default_rng(1)
    texts = [" ".join(["dog"] * int(count)) for count in random.integers(0, 20, 100)]
    alone = np.concatenate([embedder.encode_text([text]) for text in texts])
    for batch_size in (2, 32, 1000):
        np.testing.assert_allclose(embedder.encode_text(texts, batch_size=batch_size), alone, atol=ATOL)


def test_batches_of_a_window_run_at_once_and_come_in_order(texts: list[str]) -> None:
    stages = FakeStages(num_runs=3)
    meet = threading.Barrier(3, timeout=10)
    tower = stages.tower

    def waiting(tokens: TokenBatch) -> Vectors:
        meet.wait()  # breaks unless three are here together
        return tower(tokens)

    stages.tower = waiting  # type: ignore[method-assign]
    results = run(stages, texts[:288], batch_size=32)  # nine batches: three times three
    assert lengths_of(results) == [len(text) for text in texts[:288]]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmalign-texts")]


def test_one_batch_runs_in_the_callers_thread(texts: list[str]) -> None:
    stages = FakeStages(num_runs=2)
    seen: list[int] = []
    tower = stages.tower

    def noting(tokens: TokenBatch) -> Vectors:
        seen.append(threading.get_ident())
        return tower(tokens)

    stages.tower = noting  # type: ignore[method-assign]
    run(stages, texts[:8], batch_size=32)
    assert seen == [threading.get_ident()]


def test_a_run_that_fails_ends_the_others_and_the_stream(texts: list[str]) -> None:
    stages = FakeStages(num_runs=2)
    started: list[int] = []

    def failing(tokens: TokenBatch) -> Vectors:
        started.append(len(tokens.input_ids))
        if len(started) == 1:
            raise RuntimeError("the engine gave up")
        time.sleep(0.05)
        return np.zeros((len(tokens.input_ids), 1), np.float32)

    stages.tower = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="gave up"):
        run(stages, texts[:320], batch_size=32)
    assert len(started) < 10  # of ten batches: those that waited were not begun


def test_a_text_that_loses_its_end_says_so_in_its_place(embedder: Embedder) -> None:
    texts = ["a dog", "dog " * 50, None, "a cat"]
    streamed = list(embedder.stream_texts(texts, batch_size=2, on_error="skip"))  # type: ignore[arg-type]
    assert [item.truncated for item in streamed] == [False, True, False, False]
    assert [item.error is None for item in streamed] == [True, True, False, True]
