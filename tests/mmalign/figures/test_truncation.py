from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.data import Origin, Pair
from mmalign.figures.truncation import report_truncated
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.make_tiny_bundle import tiny_tokenizer


def pair(*captions: str) -> Pair:
    return Pair(b"", captions, captions[0], Origin(Path("a.csv")))


def tokenizer(context_length: int = 6) -> TextTokenizer:
    return TextTokenizer(tiny_tokenizer(), TextSpec(context_length=context_length))


def test_each_caption_that_is_cut_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [pair("a dog on the", "a dog on the beach"), pair("a dog on the beach"), pair("the quick brown fox jumps")]
    assert report_truncated(pairs, tokenizer()) == 2
    assert caplog.messages == ["2 of 3 captions have more than 6 tokens and lose their end (text.context_length)"]


def test_captions_that_fit_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    assert report_truncated([pair("a dog on the")], tokenizer()) == 0  # four tokens and two around them
    assert caplog.messages == []


def test_of_very_many_captions_a_sample_is_counted_and_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmalign.figures.truncation._MOST", 3)
    assert report_truncated([pair(f"a dog on the beach {number}") for number in range(7)], tokenizer()) == 3
    assert "3 of 3 captions" in caplog.text
    assert "in a sample of 7" in caplog.text


def test_a_caption_over_the_limit_is_an_error_that_names_its_pair() -> None:
    limited = TextTokenizer(tiny_tokenizer(), TextSpec(context_length=6, max_characters=8))
    with pytest.raises(ItemError, match=r"item 1 \(b\.csv, line 7: 'a dog on the'\), tokenize: 12 characters"):
        named = Pair(b"", ("a dog", "a dog on the"), "", Origin(Path("b.csv"), line=7))
        report_truncated([pair("a dog"), named], limited)


def test_no_captions_are_none_that_are_cut() -> None:
    assert report_truncated([], tokenizer()) == 0
