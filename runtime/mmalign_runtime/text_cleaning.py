"""What is done to a text before it is tokenized, by the name that the bundle gives it.

Some models were trained on texts that Python code had cleaned; tokenizer.json does not hold such code. The names, and
the functions that they are equal to:

- "clip": open_clip's `clean="lower"` and OpenAI's CLIP: ftfy, HTML entities twice, runs of whitespace, lower case.
- "clip_cased": open_clip's `clean="whitespace"`: the same with its case kept.
- "clip_canonical": open_clip's `clean="canonicalize"`: "clip" without ASCII punctuation, underscores as spaces.
- "siglip": transformers' `SiglipTokenizer`: lower case, no ASCII punctuation, runs of whitespace; no ftfy.

Those whose names say sentencepiece take the place of tokenizer.json's normalizer, and are in text_sentencepiece.py.

ftfy is imported for the first text that it could change, so that ASCII captions need neither its time nor it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import TypeAlias

from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Cleaning
from mmalign_runtime.text_sentencepiece import NO_PUNCTUATION, SPACE_MARK, canonical

Cleaner: TypeAlias = Callable[[str], str]

# Neither ftfy nor html.unescape changes these; but for line breaks, which end as one space as all whitespace does.
_PLAIN = re.compile(r"[\t\n\r\x20-\x25\x27-\x7e]*")


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
