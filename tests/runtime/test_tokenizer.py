from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

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


def test_truncation_keeps_the_closing_token() -> None:
    tokens = tokenizer(TextSpec(context_length=4)).encode(["dog cat dog cat dog"])
    assert tokens.input_ids.tolist() == [[CLS, DOG, CAT, SEP]]


def test_fixed_padding_fills_the_context_with_the_pad_token_of_the_spec() -> None:
    tokens = tokenizer(TextSpec(context_length=6, padding="fixed", pad_token_id=7)).encode(["dog"])
    assert tokens.input_ids.tolist() == [[CLS, DOG, SEP, 7, 7, 7]]
    assert tokens.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0]]


def test_no_texts_give_an_empty_batch() -> None:
    tokens = tokenizer(TextSpec()).encode([])
    assert tokens.input_ids.shape == tokens.attention_mask.shape == (0, 0)


def test_what_is_no_text_is_named_by_its_position() -> None:
    with pytest.raises(ItemError, match=r"item 11 \(int\), tokenize: seen int, expected str"):
        tokenizer(TextSpec()).encode(["dog", 5], first_index=10)  # type: ignore[list-item]


def test_a_lone_surrogate_is_an_item_error() -> None:
    with pytest.raises(ItemError, match="a lone surrogate at character 4"):
        check_text("dog \ud83d", 0)


def test_a_damaged_tokenizer_file_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(BundleFormatError, match=r"is no tokenizer\.json"):
        TextTokenizer.from_file(path, TextSpec())
