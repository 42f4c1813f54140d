import pickle
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from mmalign_runtime import tokenizer as tokenizer_module
from mmalign_runtime.errors import BundleFormatError, ItemError
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.tokenizer import TextTokenizer, check_text

PAD, UNKNOWN, CLS, SEP, DOG, CAT = range(6)


def tokenizer(spec: TextSpec) -> TextTokenizer:
    vocabulary = {"[PAD]": PAD, "[UNK]": UNKNOWN, "[CLS]": CLS, "[SEP]": SEP, "dog": DOG, "cat": CAT}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    special = [("[CLS]", CLS), ("[SEP]", SEP)]
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return TextTokenizer(words, spec)


def test_a_batch_is_padded_to_its_longest_text() -> None:
    tokens = tokenizer(TextSpec()).encode(["dog", "dog cat fish", ""])
    expected = [[CLS, DOG, SEP, PAD, PAD], [CLS, DOG, CAT, UNKNOWN, SEP], [CLS, SEP, PAD, PAD, PAD]]
    assert tokens.input_ids.tolist() == expected
    assert tokens.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert tokens.input_ids.dtype == tokens.attention_mask.dtype == np.int64


def test_a_text_without_tokens_is_one_padding_token_that_is_seen() -> None:
    """Where no special tokens are added, the empty text and one of spaces alone have none."""
    words = Tokenizer(WordLevel({"[PAD]": PAD, "[UNK]": UNKNOWN, "dog": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    bound = TextTokenizer(words, TextSpec(pad_token_id=PAD))
    alone, beside = bound.encode([""]), bound.encode(["dog dog", "", "  "])
    assert (alone.input_ids.tolist(), alone.attention_mask.tolist()) == ([[PAD]], [[1]])
    assert beside.input_ids.tolist() == [[2, 2], [PAD, PAD], [PAD, PAD]]
    assert beside.attention_mask.tolist() == [[1, 1], [1, 0], [1, 0]]
    assert not beside.truncated.any()


def test_truncation_keeps_the_closing_token() -> None:
    tokens = tokenizer(TextSpec(context_length=4)).encode(["dog cat dog cat dog"])
    assert tokens.input_ids.tolist() == [[CLS, DOG, CAT, SEP]]


def test_fixed_padding_fills_the_context_with_the_pad_token_of_the_spec() -> None:
    tokens = tokenizer(TextSpec(context_length=6, padding="fixed", pad_token_id=7)).encode(["dog"])
    assert tokens.input_ids.tolist() == [[CLS, DOG, SEP, 7, 7, 7]]
    assert tokens.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0]]


def test_a_spec_may_pad_and_truncate_on_the_left() -> None:
    spec = TextSpec(context_length=4, padding_side="left", truncation_side="left")
    tokens = tokenizer(spec).encode(["dog", "dog cat fish cat dog"])
    assert tokens.input_ids.tolist() == [[PAD, CLS, DOG, SEP], [CLS, CAT, DOG, SEP]]
    assert tokens.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert tokens.truncated.tolist() == [False, True]
    fixed = tokenizer(TextSpec(context_length=5, padding="fixed", padding_side="left")).encode(["dog"])
    assert fixed.input_ids.tolist() == [[PAD, PAD, CLS, DOG, SEP]]


def test_the_end_of_a_long_text_is_what_truncation_on_the_left_keeps() -> None:
    long = tokenizer(TextSpec(context_length=4, truncation_side="left")).encode(["cat " * 100_000 + "cat dog"])
    assert long.input_ids.tolist() == [[CLS, CAT, DOG, SEP]]
    assert long.truncated.tolist() == [True]


def test_no_texts_give_an_empty_batch() -> None:
    tokens = tokenizer(TextSpec()).encode([])
    assert tokens.input_ids.shape == tokens.attention_mask.shape == (0, 0)


def test_what_is_no_text_is_named_by_its_position() -> None:
    with pytest.raises(ItemError, match=r"item 11 \(int\), tokenize: seen int, expected str"):
        tokenizer(TextSpec()).encode(["dog", 5], first_index=10)  # type: ignore[list-item]


def test_a_lone_surrogate_is_an_item_error() -> None:
    with pytest.raises(ItemError, match="a lone surrogate at character 4"):
        check_text("dog \ud83d", 0, TextSpec())


def test_a_damaged_tokenizer_file_is_a_bundle_error() -> None:
    with pytest.raises(BundleFormatError, match=r"words\.json is not a tokenizer\.json"):
        TextTokenizer.from_bytes(b"{}", "words.json", TextSpec())


def test_truncation_is_reported_and_nothing_else_is() -> None:
    tokens = tokenizer(TextSpec(context_length=4)).encode(["dog cat", "dog cat dog", "", "dog " * 100])
    assert tokens.truncated.tolist() == [False, True, False, True]
    assert tokenizer(TextSpec()).encode([]).truncated.shape == (0,)


def test_a_text_over_the_limit_is_refused_before_it_is_tokenized() -> None:
    spec = TextSpec(max_characters=7)
    assert tokenizer(spec).encode(["dog cat"]).input_ids.shape == (1, 4)
    with pytest.raises(ItemError, match=r"item 0 .*: 8 characters are more than the 7 .*Split the text"):
        tokenizer(spec).encode(["dog cats"])


def test_long_texts_are_tokenized_apart_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["dog " * 5, "cat", "dog cat " * 4, "", "cat " * 9]
    together = tokenizer(TextSpec(context_length=6)).encode(texts)
    monkeypatch.setattr(tokenizer_module, "_CHARACTERS_AT_ONCE", 10)
    apart = tokenizer(TextSpec(context_length=6)).encode(texts)
    for one, other in ((together.input_ids, apart.input_ids), (together.attention_mask, apart.attention_mask)):
        np.testing.assert_array_equal(one, other)
    assert together.truncated.tolist() == apart.truncated.tolist() == [True, False, True, False, True]


def test_padding_asked_for_by_the_file_does_not_reach_the_batch() -> None:
    words = Tokenizer.from_str(tokenizer(TextSpec())._tokenizer.to_str())
    words.enable_padding(length=50)
    assert TextTokenizer(words, TextSpec()).encode(["dog"]).input_ids.tolist() == [[CLS, DOG, SEP]]


words = st.sampled_from(["dog", "cat", "fish", "\u4e16", "\U0001f436", "e\u0301", "\ufb01", ""])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.lists(words, max_size=12).map(" ".join) | st.text(max_size=30), max_size=6),
    context_length=st.integers(2, 12),
    padding=st.sampled_from(["longest", "fixed"]),
)
def test_every_batch_is_framed_padded_and_as_alone(
    texts: list[str], context_length: int, padding: Literal["longest", "fixed"]
) -> None:
    one = tokenizer(TextSpec(context_length=context_length, padding=padding))
    tokens = one.encode(texts)
    assert tokens.input_ids.shape == tokens.attention_mask.shape
    assert tokens.input_ids.shape[1] <= context_length
    for text, ids, mask, truncated in zip(
        texts, tokens.input_ids, tokens.attention_mask, tokens.truncated, strict=True
    ):
        kept = ids[mask == 1]
        assert (kept[0], kept[-1]) == (CLS, SEP)
        assert (ids[len(kept) :] == PAD).all()
        full = tokenizer(TextSpec(context_length=1000)).encode([text]).input_ids[0]
        assert truncated == (len(full) > context_length)
        assert kept.tolist() == [*full[: len(kept) - 1], SEP]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_a_text_is_utf8_or_an_item_error(text: str) -> None:
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in text)
    if is_unicode:
        check_text(text, 3, TextSpec())
    else:
        with pytest.raises(ItemError, match=r"item 3 .*a lone surrogate at character"):
            check_text(text, 3, TextSpec())


def test_a_copy_for_another_process_gives_the_same_tokens() -> None:
    found = tokenizer(TextSpec())
    assert pickle.loads(pickle.dumps(found)).encode(["dog cat"]).input_ids.tolist() == [[CLS, DOG, CAT, SEP]]
