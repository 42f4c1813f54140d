"""SigLIP's sentencepiece tokenizer as a tokenizer.json: the ids are those of transformers' own, in Python."""

from __future__ import annotations

import random

import pytest
import transformers
from tokenizers import Tokenizer

from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_export.sources.siglip_tokenizer import convert_siglip
from tests.export.sources.tiny import spm_file

_SPECIAL = ("</s>", "<unk>")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> transformers.SiglipTokenizer:
    return transformers.SiglipTokenizer(str(spm_file(tmp_path_factory.mktemp("spm"))), model_max_length=10_000)


@pytest.fixture(scope="module")
def fast(slow: transformers.SiglipTokenizer) -> Tokenizer:
    return convert_siglip(slow)


def _differing(slow: transformers.SiglipTokenizer, fast: Tokenizer, texts: list[str]) -> list[str]:
    return [text for text in texts if slow(text)["input_ids"] != fast.encode(text).ids]


def test_texts_that_meet_beside_each_other_have_the_same_ids(
    slow: transformers.SiglipTokenizer, fast: Tokenizer
) -> None:
    """One in a thousand may differ: of two cuts of a text that are equally likely, each library takes its own."""
    drawn = random.Random(0)
    plain = [text for text in PROOF_TEXTS if len(set(text)) > 1 and not any(word in text for word in _SPECIAL)]
    texts = [f"{drawn.choice(plain)} {drawn.choice(plain)}" for _ in range(1000)]
    assert _differing(slow, fast, plain) == []
    assert len(_differing(slow, fast, texts)) <= 1


def test_punctuation_goes_case_goes_and_spaces_become_one(fast: Tokenizer) -> None:
    assert fast.encode("  A dog!,  in\tthe  RAIN... ").ids == fast.encode("a dog in the rain").ids
    assert fast.encode("a dog in the rain").tokens[-1] == "</s>"
    assert fast.encode("").tokens == ["</s>"]


def test_a_sigma_that_ends_a_word_is_lowered_as_python_does(
    slow: transformers.SiglipTokenizer, fast: Tokenizer
) -> None:
    assert fast.normalizer is not None
    words = ["\u03a3\u03a5\u03a3 \u03a3", "\u03bf\u03a3 \u03a3\u03bf", "\u03b1\u03a3, \u03b1\u03a3\u03b1"]
    assert [fast.normalizer.normalize_str(word) for word in words] == [word.lower().replace(",", "") for word in words]
    assert _differing(slow, fast, words) == []


def test_a_special_token_as_a_word_is_where_the_two_differ(slow: transformers.SiglipTokenizer, fast: Tokenizer) -> None:
    """What docs/import.md says of such texts; when it no longer holds, say so there."""
    assert _differing(slow, fast, ["a dog </s> in the rain", "a dog in the rain"]) == ["a dog </s> in the rain"]
