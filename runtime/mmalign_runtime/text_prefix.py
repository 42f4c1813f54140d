"""Where a long text may be cut before it is tokenized, so that the first tokens are those of the whole text.

A tokenizer normalises a text, splits it into words, and turns each word into tokens by itself. The tokens of a prefix
are the first tokens of the whole text where the prefix ends with a word and no part looks beyond that end. Both are
known for the parts that are listed here, at the boundaries of `_boundaries`: before a space that a letter follows,
before some punctuation after a letter, between two ideographs. The letters are of scripts in which they stand alone:
never half of a grapheme or of a composition, and with no compatibility form that holds punctuation or spaces.

1. Normalizers map characters one by one, or look no further than combining marks and graphemes reach, which is never
   over a boundary. What they replace is punctuation or spaces: over a boundary that can only be the separator itself.
2. Pre-tokenizers decide by classes of characters, or by regular expressions that match nothing that reaches over a
   boundary. Whether they split there is tried out, on every ASCII character.
3. Models see one word at a time. BPE with dropout is random, so it has no tokens that a cut could keep.
4. Added tokens are found before all that: none may hold a separator, or a character that is not ASCII.

A tokenizer with any other part has no boundaries, and its texts are tokenized whole.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

import msgspec
from tokenizers import Tokenizer

_IDEOGRAPHS = "一-龥"
_LETTERS = (
    "0-9A-Za-zÀ-ÖØ-öø-ɏ"  # Latin
    "Α-ΡΣ-ώЀ-ҁҊ-ԯא-תء-غف-يऄ-हก-ฮა-ჺ"  # Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Georgian
    f"ぁ-ゖァ-ヺ{_IDEOGRAPHS}가-힣"
)
_PICTURES = "☀-➿\U0001f300-\U0001f3fa\U0001f400-\U0001faff"  # not the modifiers of skin between the two
_SPACES = (" ", "\n", "\t")
_PUNCTUATION = (",", ";", ".")
# Probes: every ASCII letter and digit, and an ideograph, round which BertNormalizer puts spaces.
_PROBES = (*string.ascii_letters, *string.digits, "一")
_PICTURE_PROBES = ("☀", "🐶")

_NORMALIZERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled"}
    | {"Replace", "Strip", "StripAccents"}
)
_PRE_TOKENIZERS = frozenset(
    {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation"}
    | {"Split", "Whitespace", "WhitespaceSplit"}
)
_MODELS = frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"})
_REPLACED_EXPRESSIONS = frozenset({r" {2,}", r"\s+"})
_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_MARKERS = r"<\|startoftext\|>|<\|endoftext\|>"
_CLIP = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORDS, _OTHERS = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE_RUNS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# Of CLIP, open_clip, GPT-2, Llama 3 and Qwen 2.
_SPLITTING_EXPRESSIONS = frozenset(
    {
        f"{_CONTRACTIONS}|{_CLIP}",
        f"{_MARKERS}|{_CONTRACTIONS}|{_CLIP}",
        rf"(?i:{_CONTRACTIONS})|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}\x{{345}}]+",
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
        *(rf"(?i:{_CONTRACTIONS})|{_WORDS}|{numbers}|{_OTHERS}|{_SPACE_RUNS}" for numbers in (r"\p{N}", r"\p{N}{1,3}")),
    }
)


class _Part(msgspec.Struct):
    """One normalizer or pre-tokenizer, with those of its fields that matter here."""

    type: str
    pattern: dict[str, str] | None = None
    normalizers: list[_Part] = []
    pretokenizers: list[_Part] = []


class Boundaries:
    """Where the texts of one tokenizer may be cut."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._found = _boundaries(tokenizer)

    def prefix(self, text: str, num_characters: int) -> str:
        """Return the longest prefix with a boundary behind it among so many characters, or else the whole text."""
        if len(text) <= num_characters or self._found is None:
            return text
        found = self._found.match(text, 0, num_characters)
        return text if found is None else found.group()


def _boundaries(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    if not _is_known(tokenizer):
        return None
    contents = "".join(token.content for token in tokenizer.get_added_tokens_decoder().values())
    spaces = [each for each in _SPACES if all(_splits(tokenizer, one, each + one) for one in _PROBES)]
    marks = [each for each in _PUNCTUATION if each not in contents and _separates(tokenizer, each)]
    kinds = []
    if spaces:
        kinds.append(f"[{_LETTERS}](?=[{''.join(spaces)}][{_LETTERS}])")
    if " " in spaces and _splits_at_spaces(tokenizer):
        kinds.append(f"[{_LETTERS}{_PICTURES}{re.escape(string.punctuation)}](?= [{_LETTERS}{_PICTURES}])")
    if marks:
        kinds.append(f"[{_LETTERS}](?=[{''.join(marks)}] ?[{_LETTERS}])")
    if _splits(tokenizer, "一", "龥"):
        kinds.append(f"[{_IDEOGRAPHS}](?=[{_IDEOGRAPHS}])")
    return re.compile(f"(?s:.*)(?:{'|'.join(kinds)})") if kinds else None  # greedy: the last one


def _splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Say whether words end at a space also beside punctuation and pictures."""
    lefts = (f"a{one}" for one in (*string.punctuation, *_PICTURE_PROBES))
    rights = (f" {one}" for one in _PICTURE_PROBES)
    return all(_splits(tokenizer, left, " a") for left in lefts) and all(
        _splits(tokenizer, one, right) for right in rights for one in _PROBES
    )


def _separates(tokenizer: Tokenizer, mark: str) -> bool:
    """Say whether words end before a punctuation mark, which no normalizer makes another character of."""
    is_kept = tokenizer.normalizer is None or mark in tokenizer.normalizer.normalize_str(f"a{mark}a")
    return is_kept and all(_splits(tokenizer, one, f"{mark}{space}{one}") for one in _PROBES for space in ("", " "))


def _splits(tokenizer: Tokenizer, left: str, right: str) -> bool:
    """Say whether the words of `left` are the first words of both parts together, and not all of them."""
    alone, both = _words(tokenizer, left), _words(tokenizer, left + right)
    return 0 < len(alone) < len(both) and both[: len(alone)] == alone


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    assert tokenizer.pre_tokenizer is not None
    normalised = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised)]


def _is_known(tokenizer: Tokenizer) -> bool:
    if tokenizer.pre_tokenizer is None or type(tokenizer.model).__name__ not in _MODELS:
        return False
    pre_tokenizers = list(_parts(tokenizer.pre_tokenizer.__getstate__()))
    normalizers = [] if tokenizer.normalizer is None else list(_parts(tokenizer.normalizer.__getstate__()))
    return (
        not getattr(tokenizer.model, "dropout", None)
        and all(part.type in _NORMALIZERS and _is_local(part, _REPLACED_EXPRESSIONS) for part in normalizers)
        and all(part.type in _PRE_TOKENIZERS and _is_local(part, _SPLITTING_EXPRESSIONS) for part in pre_tokenizers)
        # After it a character is one to four others, and classes of characters are those of bytes.
        and all(part.type != "ByteLevel" for part in pre_tokenizers[:-1])
        and all(_is_plain(token.content) for token in tokenizer.get_added_tokens_decoder().values())
    )


def _parts(state: bytes) -> Iterator[_Part]:
    part = msgspec.json.decode(state, type=_Part)
    if part.type != "Sequence":
        yield part
    for inner in (*part.normalizers, *part.pretokenizers):
        yield from _parts(msgspec.json.encode(inner))


def _is_local(part: _Part, expressions: frozenset[str]) -> bool:
    """Say whether a part that looks for a pattern finds nothing that reaches over a boundary but the space itself."""
    if part.pattern is None:
        return True
    if "Regex" in part.pattern:
        return part.pattern["Regex"] in expressions
    return _is_punctuation(part.pattern.get("String", ""))


def _is_punctuation(text: str) -> bool:
    """Say whether a literal pattern is a space, or punctuation without one: it reaches over no space but as itself."""
    return text in (" ", "▁") or (bool(text) and all(character in string.punctuation for character in text))


def _is_plain(content: str) -> bool:
    return content.isascii() and content.isprintable() and " " not in content
