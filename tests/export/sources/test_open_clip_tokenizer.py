"""CLIP's tokenizer as a tokenizer.json, cleaned by the runtime, against open_clip's SimpleTokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer, canonicalize_text, get_clean_fn
from transformers import CLIPTokenizer, SiglipTokenizer

from mmalign_export.errors import SourceError
from mmalign_export.sources.open_clip_place import OpenClipPlace
from mmalign_export.sources.open_clip_text import clip_tokenizer, read_tokenizer
from mmalign_runtime.spec import Cleaning, TextSpec
from mmalign_runtime.text_cleaning import find_cleaner
from mmalign_runtime.text_prefix import Boundaries
from mmalign_runtime.tokenizer import TextTokenizer
from tests.export.sources.many_scripts import many_scripts

NUM_TEXTS = 10_000
ODD = ["", " ", "'ſ", "\u0345a\u0345", "<start_of_text> a <end_of_text> b", "a\x00b", "ﬁ ǅ İ ẞ ΑΣ", "1st 22nd", "#☀️'S"]


@pytest.fixture(scope="module")
def original() -> SimpleTokenizer:
    return SimpleTokenizer()


def bound(original: SimpleTokenizer, cleaning: Cleaning = "clip") -> TextTokenizer:
    spec = TextSpec(cleaning=cleaning, context_length=77, padding="fixed", pad_token_id=0)
    return TextTokenizer(clip_tokenizer(original), spec)


def test_ten_thousand_texts_of_many_scripts_have_open_clips_ids(original: SimpleTokenizer) -> None:
    texts = [*ODD, *many_scripts(NUM_TEXTS)]
    ours, theirs = bound(original).encode(texts).input_ids, original(texts).numpy()
    assert [ascii(texts[at]) for at in np.flatnonzero((ours != theirs).any(axis=1))] == []


def test_transformers_gives_other_ids_where_open_clip_repairs_a_text(original: SimpleTokenizer) -> None:
    """So that one model has a space from each library, and which texts part them: docs/import.md says it."""
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): number for token, number in original.encoder.items()}
    theirs = CLIPTokenizer(vocab=vocab, merges=list(original.bpe_ranks))
    ours = bound(original)

    def differ(texts: list[str]) -> list[str]:
        rows = [row.ids for row in ours.tokenize(texts)]
        return [text for text, row in zip(texts, rows, strict=True) if row != theirs(text)["input_ids"]]

    plain = ["a photo of a dog", "It's 3:45, isn't it?", "Zürich, naïve café", "一只在雨中奔跑的狗", "two  spaces\ttab"]
    repaired = ["salt &amp; pepper", "cafÃ© schÃ¶n", "“quoted” ﬁne", "full ｗｉｄｔｈ"]
    assert differ([*plain, *repaired]) == repaired


def test_long_texts_are_cut_as_open_clip_cuts_them(original: SimpleTokenizer) -> None:
    """Only their beginning is tokenized: the boundaries of this tokenizer are known to the runtime."""
    texts = [" ".join(many_scripts(400, seed)) for seed in range(3)] + ["a dog &amp; a CAT, " * 4_000]
    tokenizer = bound(original)
    assert (tokenizer.encode(texts).input_ids == original(texts).numpy()).all()
    cut = Boundaries(clip_tokenizer(original)).prefix("a dog and a cat " * 100, 200)
    assert 0 < len(cut) <= 200


@pytest.mark.parametrize(
    ("cleaning", "theirs"),
    [("clip", get_clean_fn("lower")), ("clip_cased", get_clean_fn("whitespace")),
     ("clip_canonical", get_clean_fn("canonicalize"))],
)  # fmt: skip
def test_cleaned_texts_are_open_clips(cleaning: Cleaning, theirs) -> None:
    cleaner = find_cleaner(cleaning)
    assert cleaner is not None
    texts = [*ODD, *many_scripts(3_000, 1), *(text.encode("ascii", "replace").decode() for text in many_scripts(500))]
    assert [text for text in texts if cleaner(text) != theirs(text)] == []


def test_cleaned_texts_are_those_of_transformers_siglip() -> None:
    cleaner = find_cleaner("siglip")
    assert cleaner is not None
    slow = SiglipTokenizer.__new__(SiglipTokenizer)
    slow.__dict__["do_lower_case"] = True
    for text in [*ODD, *many_scripts(1_000, 2), " ▁a", "?! a"]:
        assert "▁" + cleaner(text) == slow.canonicalize_text("▁" + text.replace("▁", " "))
    assert canonicalize_text("a_b") == "a b"  # open_clip's own differs: it is "clip_canonical"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"tokenizer_kwargs": {"reduction_mask": "random"}}, "drops tokens at random"),
        ({"tokenizer_kwargs": {"clean": "upper"}, "hf_tokenizer_name": ""}, "clean='upper'; expected one of lower"),
        ({"hf_tokenizer_name": "x", "tokenizer_mode": "clips"}, "tokenizer_mode='clips'"),
        ({"hf_tokenizer_name": "not there"}, "Put its files .* beside the weights"),
    ],
)
def test_what_no_tokenizer_json_says_is_refused(tmp_path, text: dict, message: str) -> None:
    place = OpenClipPlace(
        name="a model",
        model={"text_cfg": text},
        preprocessing={},
        weights=tmp_path,
        files=(),
        tokenizer=str(tmp_path),
    )
    with pytest.raises(SourceError, match=message):
        read_tokenizer(place)
