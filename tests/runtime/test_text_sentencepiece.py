"""SigLIP's cleaning with sentencepiece's table, from a text to the ids of a tokenizer.json that holds the table."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import Cleaning, TextSpec
from mmalign_runtime.text_cleaning import SiglipCleaner
from mmalign_runtime.tokenizer import TextTokenizer
from tests.runtime.charsmaps import BLOCK, charsmap, joined, parted

TABLE = charsmap({"e\u0301": "é", "\u200b": " ", "¨": " \u0308", "Ａ": "A", "ａ": "a"})
SPEC = TextSpec(cleaning="siglip_sentencepiece", pad_token_id=0)
PIECES = ("<pad>", "<unk>", "</s>", "▁", "▁caf", "caf", "é", "e", "\u0301", "▁a", "a", "A", "▁in")


def tokenizer(normalizer: normalizers.Normalizer | None) -> Tokenizer:
    made = Tokenizer(Unigram([(piece, -float(at)) for at, piece in enumerate(PIECES)], unk_id=1))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    made.add_special_tokens([AddedToken("</s>", normalized=False)])
    if normalizer is not None:
        made.normalizer = normalizer
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A  Cafe\u0301!", "▁a café"),
        ("", ""),
        ("?!", ""),
        (" b", "▁ b"),
        ("▁a▁▁b", "▁ a b"),
        ("a \u200b\u200b b\u200b", "▁a b"),
        ("\u200ba", "▁ a"),
        ("a ¨", "▁a \u0308"),
        ("a </s>  IN </s>", "▁a</s>in</s>"),
        ("</s>", "</s>"),
        ("Ａ", "▁a"),
    ],
)
def test_texts_are_cleaned_normalised_and_marked(text: str, expected: str) -> None:
    assert SiglipCleaner(tokenizer(normalizers.Precompiled(TABLE)), is_cased=False)(text) == expected


def test_case_is_kept_where_the_model_keeps_it() -> None:
    assert SiglipCleaner(tokenizer(normalizers.Precompiled(TABLE)), is_cased=True)("A, Ａ.") == "▁A A"


def test_a_model_without_a_table_has_its_texts_cleaned_alone() -> None:
    assert SiglipCleaner(tokenizer(None), is_cased=False)("A  Cafe\u0301!") == "▁a cafe\u0301"


def test_the_table_is_applied_by_longest_match_and_not_again_by_tokenizers() -> None:
    """tokenizers looks "é" up as a grapheme of "e" alone where the table has that, and loses the accent."""
    table = charsmap({"e\u0301": "é", "e": "A"})
    bound = TextTokenizer(tokenizer(normalizers.Precompiled(table)), SPEC)
    assert bound.encode(["cafe\u0301 e"]).input_ids.tolist() == [
        [PIECES.index(each) for each in ("▁caf", "é", "▁", "A")]
    ]


def test_a_tokenizer_that_workers_are_given_has_the_table_still() -> None:
    bound = TextTokenizer(tokenizer(normalizers.Precompiled(TABLE)), SPEC)
    given = pickle.loads(pickle.dumps(bound))
    text = ["A cafe\u0301 ａ"]
    assert given.encode(text).input_ids.tolist() == bound.encode(text).input_ids.tolist()
    assert bound.encode(text).input_ids.tolist()[0][2] == PIECES.index("é")


@pytest.mark.parametrize("cleaning", ["none", "siglip"])
def test_other_cleanings_leave_the_table_to_tokenizers(cleaning: Cleaning) -> None:
    made = tokenizer(normalizers.Precompiled(TABLE))
    expected = made.encode("cafe\u0301 a").ids
    bound = TextTokenizer(made, TextSpec(cleaning=cleaning, pad_token_id=0))
    assert bound.encode(["cafe\u0301 a"]).input_ids.tolist() == [expected]


def test_another_normalizer_is_an_error() -> None:
    raw = tokenizer(normalizers.NFKC()).to_str().encode()
    with pytest.raises(BundleFormatError, match=r"text/tokenizer.json: .* to be 'Precompiled' or none"):
        TextTokenizer.from_bytes(raw, "text/tokenizer.json", SPEC)


def _circle(units: np.ndarray, texts: bytes) -> bytes:
    units[BLOCK + ord("a")] = (BLOCK + ord("a") ^ BLOCK) << 10 | ord("a")
    return joined(units, texts)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_circle, "goes in a circle"),
        (lambda units, texts: joined(units[:300], texts), "leads to"),
        (lambda units, texts: joined(units, b"x" * 300 + b"\0"), "has 300 bytes, at most 256"),
    ],
)
def test_a_damaged_table_is_named_when_the_tokenizer_is_read(
    damage: Callable[[np.ndarray, bytes], bytes], message: str
) -> None:
    made = tokenizer(normalizers.Precompiled(damage(*parted(TABLE))))
    with pytest.raises(BundleFormatError, match=f"text/tokenizer.json: the precompiled_charsmap.*{message}"):
        TextTokenizer.from_bytes(made.to_str().encode(), "text/tokenizer.json", SPEC)


def test_a_table_that_is_cut_is_named_when_the_tokenizer_is_read() -> None:
    contents = json.loads(tokenizer(normalizers.Precompiled(TABLE)).to_str())
    cut = base64.b64encode(TABLE[: len(TABLE) // 2]).decode()
    contents["normalizer"]["precompiled_charsmap"] = cut
    with pytest.raises(BundleFormatError, match=r"text/tokenizer.json(:| is not a tokenizer.json)"):
        TextTokenizer.from_bytes(json.dumps(contents).encode(), "text/tokenizer.json", SPEC)
