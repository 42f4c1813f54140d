"""What is done to a text before it is tokenized, by the name that the bundle gives it.

Some models were trained on texts that Python code had cleaned; tokenizer.json does not hold such code. The names, and
the functions that they are equal to:

- "clip": open_clip's `clean="lower"` and OpenAI's CLIP: ftfy, HTML entities twice, runs of whitespace, lower case.
- "clip_cased": open_clip's `clean="whitespace"`: the same with its case kept.
- "clip_canonical": open_clip's `clean="canonicalize"`: "clip" without ASCII punctuation, underscores as spaces.
- "siglip": transformers' `SiglipTokenizer`: lower case, no ASCII punctuation, runs of whitespace; no ftfy.

Those whose names say sentencepiece are SiglipCleaner, which takes the place of tokenizer.json's normalizer.

ftfy is imported for the first text that it could change, so that ASCII captions need neither its time nor it.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from tokenizers import Tokenizer

from mmalign_runtime.errors import BundleFormatError, MissingDependencyError
from mmalign_runtime.spec import Cleaning
from mmalign_runtime.text_charsmap import Charsmap

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What sentencepiece writes for a space; transformers puts one before each text.
SPACE_MARK = "▁"

Cleaner: TypeAlias = Callable[[str], str]

# Neither ftfy nor html.unescape changes these; but for line breaks, which end as one space as all whitespace does.
_PLAIN = re.compile(r"[\t\n\r\x20-\x25\x27-\x7e]*")


class _Table(msgspec.Struct, tag="Precompiled"):
    """A `Precompiled` normalizer; msgspec reads base64 as bytes."""

    precompiled_charsmap: bytes


class SiglipCleaner:
    """SigLIP's texts as transformers' `SiglipTokenizer` gives them to sentencepiece, and as that normalises them.

    Special tokens in a text stay and cut it into parts. Each part loses ASCII punctuation and runs of whitespace, goes
    through the table of tokenizer.json's `Precompiled` normalizer, and loses the spaces that the table made beside
    others and at its end. A mark for the space before the first word is put in front, so that tokenizer.json need not.
    """

    def __init__(self, tokenizer: Tokenizer, *, is_cased: bool) -> None:
        """Read the table and the special tokens. Raises BundleFormatError where tokenizer.json has another normalizer
        than `Precompiled` or none, or the table is damaged.
        """
        self._charsmap = _charsmap(tokenizer)
        self._is_cased = is_cased
        tokens = (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(longest_first)})" if longest_first else "(?!)")

    def __call__(self, text: str) -> str:
        """Return what the tokenizer's pre-tokenizer is to see of a text."""
        parts = self._special.split(SPACE_MARK + text.replace(SPACE_MARK, " "))
        parts[::2] = map(self._normalised, parts[::2])  # the others are the tokens
        return "".join(parts)

    def _normalised(self, part: str) -> str:
        plain = canonical(part if self._is_cased else part.lower())
        if self._charsmap is None:
            return plain.rstrip(f" {SPACE_MARK}")
        return re.sub(" {2,}", " ", self._charsmap.replace(plain)).rstrip(f" {SPACE_MARK}")


def canonical(text: str) -> str:
    """Return a text without ASCII punctuation, with one space for each run of whitespace and none at its ends."""
    return re.sub(r"\s+", " ", text.translate(NO_PUNCTUATION)).strip()


def _charsmap(tokenizer: Tokenizer) -> Charsmap | None:
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return None
    try:
        return Charsmap(msgspec.json.decode(normalizer.__getstate__(), type=_Table).precompiled_charsmap)
    except msgspec.ValidationError as error:
        raise BundleFormatError(
            "`cleaning` says that sentencepiece's table is applied before tokenizer.json, whose normalizer holds it, "
            f"and is to be 'Precompiled' or none: {error}. Choose another cleaning, or export the bundle again."
        ) from error


def find_cleaner(name: Cleaning) -> Cleaner | None:
    """Return the function of that name, or None for "none": such texts go to the tokenizer as they are.

    The function raises MissingDependencyError for a text that needs ftfy where that is not installed.
    """
    return _CLEANERS[name]


def _clip_cased(text: str) -> str:
    return " ".join(_repaired(text).split())


def _clip(text: str) -> str:
    return _clip_cased(text).lower()


def _clip_canonical(text: str) -> str:
    return " ".join(_repaired(text).replace("_", " ").translate(NO_PUNCTUATION).lower().split())


def _siglip(text: str) -> str:
    """Return what transformers' tokenizer makes of a text, less the mark that it puts before it.

    That mark keeps one space at the beginning, where the text had some.
    """
    return canonical((SPACE_MARK + text.replace(SPACE_MARK, " ")).lower())[len(SPACE_MARK) :]


def _repaired(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else html.unescape(html.unescape(_fixed(text)))


def _fixed(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependencyError(
            f"the text {text[:40]!a} is to be cleaned by ftfy before it is tokenized, as all texts of this model "
            "were, and ftfy is not installed. Run `pip install 'mmalign-runtime[clean]'`."
        ) from error
    return ftfy.fix_text(text)


_CLEANERS: dict[Cleaning, Cleaner | None] = {
    "none": None,
    "clip": _clip,
    "clip_cased": _clip_cased,
    "clip_canonical": _clip_canonical,
    "siglip": _siglip,
}
