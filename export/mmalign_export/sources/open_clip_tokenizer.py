"""open_clip's tokenizers as a tokenizer.json, and what they do beside it: cleaning, length, padding.

SimpleTokenizer (CLIP's) is written anew from its vocabulary and merges. Its ids are equal to open_clip's on every text
of characters that are assigned in Unicode; `regex` and tokenizers may classify a newer one differently.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from mmalign_export.errors import SourceError
from mmalign_export.sources.open_clip_place import OpenClipPlace, part
from mmalign_export.sources.refusals import first_sentence
from mmalign_runtime.spec import Cleaning

# SimpleTokenizer's own, with what `regex` makes of it: U+0345 is neither a letter nor anything else where case is
# ignored, so that it is dropped.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
_END_OF_WORD = "</w>"
_CLEANING: dict[str, Cleaning] = {"lower": "clip", "whitespace": "clip_cased", "canonicalize": "clip_canonical"}
# What open_clip's tokenizers draw at random, or lay out in a way that no tokenizer.json says.
_REFUSED = {"reduction_mask": "drops tokens at random", "language": "begins texts with the token of a language"}


class OpenClipTokenizer(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer of open_clip: `original` as it is, `converted` without cleaning, truncation and padding.

    `end_id` closes every text. `replaced_id` is taken for `pad_id` before the tower sees it, where there is one.
    """

    original: SimpleTokenizer | HFTokenizer
    converted: Tokenizer
    cleaning: Cleaning
    context_length: int
    pad_id: int
    pad_token: str
    end_id: int
    replaced_id: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"


def read_tokenizer(place: OpenClipPlace) -> OpenClipTokenizer:
    """Return the tokenizer that open_clip's configuration names. Raises SourceError."""
    text = part(place.model, "text_cfg")
    options = dict(part(text, "tokenizer_kwargs")) if text.get("tokenizer_kwargs") else {}
    for name, why in _REFUSED.items():
        if options.get(name):
            raise SourceError(f"the tokenizer of {place.name} {why} ({name}={options[name]!r}), which is not imported.")
    if mode := text.get("tokenizer_mode"):
        raise SourceError(f"the tokenizer of {place.name} has tokenizer_mode={mode!r}; none is known here.")
    length = int(cast("int", text.get("context_length", DEFAULT_CONTEXT_LENGTH)))
    if text.get("hf_tokenizer_name"):
        return _of_transformers(place, length, options)
    cleaning = _cleaning(options, "lower")
    try:
        original = SimpleTokenizer(context_length=length, **options)
    except (TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"open_clip's tokenizer does not take {options} of {place.name}: {first_sentence(error)}. Correct "
            "tokenizer_kwargs in its text_cfg."
        ) from error
    return OpenClipTokenizer(
        original=original,
        converted=clip_tokenizer(original),
        cleaning=cleaning,
        context_length=length,
        pad_id=0,
        pad_token=original.decoder[0],
        end_id=original.eot_token_id,
    )


def clip_tokenizer(original: SimpleTokenizer) -> Tokenizer:
    """Return SimpleTokenizer as a tokenizer.json: it gives the same ids for texts that are cleaned already."""
    found = Tokenizer(
        models.BPE(vocab=original.encoder, merges=list(original.bpe_ranks), end_of_word_suffix=_END_OF_WORD)
    )
    words = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    special = [original.decoder[number] for number in original.all_special_ids]
    found.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    start, end = original.sot_token_id, original.eot_token_id
    found.post_processor = processors.TemplateProcessing(
        single=f"{original.decoder[start]} $A {original.decoder[end]}",
        special_tokens=[(original.decoder[start], start), (original.decoder[end], end)],
    )
    return found


def _of_transformers(place: OpenClipPlace, length: int, options: dict[str, object]) -> OpenClipTokenizer:
    cleaning = _cleaning(options, "whitespace")
    try:
        original = HFTokenizer(place.tokenizer, context_length=length, trust_remote_code=False, **options)
    except Exception as error:  # tokenizers raises Exception itself
        raise SourceError(
            f"the tokenizer of {place.name} cannot be read at {Path(place.tokenizer).name}: {first_sentence(error)}. "
            "Put its files (tokenizer.json, tokenizer_config.json) beside the weights."
        ) from error
    inner = original.tokenizer
    if not inner.is_fast or inner.pad_token_id is None:
        raise SourceError(
            f"the tokenizer of {place.name} ({type(inner).__name__}) has no tokenizer.json or no padding token. Save "
            "its fast form beside the weights."
        )
    end = inner.eos_token_id if inner.sep_token_id is None else inner.sep_token_id
    return OpenClipTokenizer(
        original=original,
        converted=Tokenizer.from_str(inner.backend_tokenizer.to_str()),
        cleaning=cleaning,
        context_length=length,
        pad_id=inner.pad_token_id,
        pad_token=inner.pad_token,
        end_id=-1 if end is None else end,
        replaced_id=inner.sep_token_id if original.strip_sep_token else None,
        padding_side=inner.padding_side,
        truncation_side=inner.truncation_side,
    )


def _cleaning(options: dict[str, object], usual: str) -> Cleaning:
    name = str(options.get("clean", usual))
    if name not in _CLEANING:
        raise SourceError(f"open_clip's tokenizer has clean={name!r}; expected one of {', '.join(_CLEANING)}.")
    return _CLEANING[name]
