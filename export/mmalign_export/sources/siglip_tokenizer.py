"""SigLIP's tokenizer, which transformers runs in Python around sentencepiece, as a tokenizer.json.

Its cleaning (lower case, no ASCII punctuation, single spaces) becomes a normalizer. What differs from sentencepiece in
corner cases is found by the proof, which names the texts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import SpmConverter

from mmalign_export.errors import SourceError

_SPACE = "\u2581"
_UNIGRAM = 1  # of sentencepiece's TrainerSpec.ModelType
# Python lowers a sigma that ends a word to another letter than one inside it; `Lowercase` knows one lower sigma.
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
FINAL_SIGMA = normalizers.Replace(Regex(f"(?<={_CASED})\u03a3(?!{_CASED})"), "\u03c2")
PUNCTUATION = f"[{re.escape(string.punctuation)}]"


def convert_siglip(slow: transformers.SiglipTokenizer) -> Tokenizer:
    """Return a tokenizer that gives the same ids, with the end token behind every text. Raises SourceError."""
    build: Callable[..., SpmConverter] = SpmConverter
    converter = build(slow)
    model = converter.proto
    if model.trainer_spec.model_type != _UNIGRAM:
        raise SourceError(
            f"SigLIP's sentencepiece model is of type {model.trainer_spec.model_type}; expected {_UNIGRAM}, unigram. "
            "Save the model with a fast tokenizer."
        )
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=model.trainer_spec.unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(slow), _own_normalizer(converter)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=False)
    end = str(slow.eos_token)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, int(slow.eos_token_id))]
    )
    special = sorted({str(token) for token in slow.all_special_tokens})
    tokenizer.add_special_tokens([AddedToken(token, lstrip=True, rstrip=True, normalized=False) for token in special])
    return tokenizer


def _own_normalizer(converter: SpmConverter) -> normalizers.Normalizer:
    """Return what the sentencepiece model itself does to a text."""
    made: Callable[..., normalizers.Normalizer] = converter.normalizer
    return made(converter.proto)


def _cleaning(slow: transformers.SiglipTokenizer) -> list[normalizers.Normalizer]:
    """Return what `SiglipTokenizer.canonicalize_text` does."""
    return [
        *([FINAL_SIGMA, normalizers.Lowercase()] if slow.do_lower_case else []),
        normalizers.Replace(Regex(PUNCTUATION), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
