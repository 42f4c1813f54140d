"""The tokenizer.json beside a text tower, and the text spec that its tokenizer_config.json and the graph ask for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec
from tokenizers import Encoding, Tokenizer

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import check_padding_side, first_sentence, read_json
from mmalign_runtime.spec import TextSpec

# transformers writes 10**30 where a tokenizer has no limit.
_NO_LIMIT = 1_000_000
_LENGTHS = ("model_max_length", "max_length")


class OnnxTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What tokenizes a pair's texts."""

    tokenizer: Tokenizer
    spec: TextSpec


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder as it is. Raises SourceError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no tokenizer.json. Fetch the model whole: a graph reads ids, not texts.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise SourceError(f"{path} cannot be read: {first_sentence(error)}. Fetch it again.") from error


def read_texts(
    folder: Path, tokenizer: Tokenizer, lengths: Mapping[str, int | None], padding: Literal["longest", "fixed"]
) -> OnnxTexts:
    """Return a folder's tokenizer with its spec. `lengths` are what limits texts beside its configuration, by name.

    Raises SourceError where nothing says how long a text may be, or what it is padded with.
    """
    config = read_json(folder / "tokenizer_config.json")
    own = [int(each) for name in _LENGTHS if isinstance(each := config.get(name), int | float) and each < _NO_LIMIT]
    limits = [each for each in (*own, *lengths.values()) if each is not None and 0 < each < _NO_LIMIT]
    if not limits:
        raise SourceError(
            f"{folder} does not say how many tokens the text tower reads. Set model_max_length in its "
            "tokenizer_config.json."
        )
    pad_token, pad_token_id = _padding(folder, tokenizer, config)
    check_padding_side(str(config.get("padding_side")), padding)
    spec = TextSpec(
        context_length=min(limits),
        truncation_side="left" if config.get("truncation_side") == "left" else "right",
        padding=padding,
        padding_side="left" if config.get("padding_side") == "left" else "right",
        pad_token=pad_token,
        pad_token_id=pad_token_id,
    )
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return OnnxTexts(tokenizer=plain, spec=spec)


def library_tokens(tokenizer: Tokenizer, spec: TextSpec, *, is_padded: bool) -> Callable[[str], Encoding]:
    """Return how the libraries tokenize a text by itself: tokenizers, which cuts it and pads it."""
    bound = copy.deepcopy(tokenizer)
    bound.enable_truncation(spec.context_length, direction=spec.truncation_side)
    if is_padded:
        bound.enable_padding(
            direction=spec.padding_side,
            pad_id=spec.pad_token_id,
            pad_token=spec.pad_token,
            length=spec.context_length,
        )
    else:
        bound.no_padding()
    return bound.encode


def _padding(folder: Path, tokenizer: Tokenizer, config: Mapping[str, object]) -> tuple[str, int]:
    """Return the padding token and its id: as configured, or else as tokenizer.json has it."""
    named = config.get("pad_token")
    if isinstance(named, dict):
        named = named.get("content")
    own = tokenizer.padding
    token = named or (own["pad_token"] if own else None)
    found = None if token is None else tokenizer.token_to_id(cast("str", token))
    if token is None or found is None:
        raise SourceError(
            f"{folder}: the tokenizer's padding token is {token!r}, which has no id. Set pad_token in its "
            "tokenizer_config.json."
        )
    return str(token), found
