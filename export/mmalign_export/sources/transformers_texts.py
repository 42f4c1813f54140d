"""From a tokenizer of transformers to tokenizer.json and the text spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import transformers
from tokenizers import Tokenizer

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.refusals import check_last, check_padding_side, first_sentence
from mmalign_export.sources.siglip_tokenizer import convert_siglip, siglip_cleaning
from mmalign_export.sources.transformers_families import Family
from mmalign_runtime.spec import TextSpec

# The eos_token_id of CLIP's first configurations: a text is read at its highest id.
_HIGHEST = 2
# What stands around a text.
_FEWEST = 2
# transformers writes 10**30 where a tokenizer has no limit.
_NO_LIMIT = 1_000_000


def fast_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase) -> Tokenizer:
    """Return the tokenizer as tokenizer.json holds it, without truncation and padding. Raises SourceError."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None and isinstance(tokenizer, transformers.SiglipTokenizer):
        backend = convert_siglip(tokenizer)
    if backend is None:
        raise SourceError(
            f"{type(tokenizer).__name__} runs in Python, and nothing converts it to a tokenizer.json. Save the model "
            "with a fast tokenizer."
        )
    fast = Tokenizer.from_str(cast("Tokenizer", backend).to_str())
    fast.no_truncation()
    fast.no_padding()
    return fast


def text_spec(
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: Mapping[str, object],
    family: Family,
    options: SourceOptions,
) -> TextSpec:
    """Return the text spec of a tokenizer and the text tower's configuration. Raises SourceError."""
    pad_token, pad_token_id = tokenizer.pad_token, tokenizer.pad_token_id
    if pad_token is None or pad_token_id is None:
        raise SourceError("the tokenizer has no padding token. Set pad_token in its tokenizer_config.json.")
    check_padding_side(tokenizer.padding_side, family.padding)
    return TextSpec(
        cleaning=siglip_cleaning(tokenizer) if isinstance(tokenizer, transformers.SiglipTokenizer) else "none",
        context_length=context_length(tokenizer, config, family),
        truncation_side="left" if tokenizer.truncation_side == "left" else "right",
        padding="fixed" if options.length == "fixed" else family.padding,
        padding_side="left" if tokenizer.padding_side == "left" else "right",
        pad_token_id=int(pad_token_id),
        pad_token=str(pad_token),
    )


def context_length(
    tokenizer: transformers.PreTrainedTokenizerBase, config: Mapping[str, object], family: Family
) -> int:
    """Return the most tokens that both the tokenizer and the tower's positions allow."""
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or longest < _FEWEST:
        raise SourceError(
            f"the tokenizer's model_max_length is {longest!r}; expected a number of tokens, at least {_FEWEST}. "
            "Correct tokenizer_config.json, or fetch it again."
        )
    limits = [int(longest)] if longest < _NO_LIMIT else []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        # RoBERTa counts positions from the one after its padding's.
        first = int(cast("int", config.get("pad_token_id", 1))) + 1 if _counts_from_padding(config) else 0
        limits.append(positions - first)
    if not limits:
        raise SourceError(
            "neither the tokenizer nor the text tower says how many tokens it reads. Set model_max_length."
        )
    if family.padding == "fixed" and isinstance(positions, int):
        return positions
    return min(limits)


def check_end(tokenizer: transformers.PreTrainedTokenizerBase, config: Mapping[str, object], family: Family) -> None:
    """Raise SourceError for a tokenizer that ends its texts otherwise than the tower that is read at their end."""
    if family.read_at not in ("CLIP's end token", "end token"):
        return
    try:
        ids = cast("list[int]", cast("Callable[[str], dict[str, object]]", tokenizer)("a")["input_ids"])
    except Exception as error:  # tokenizers raises Exception itself
        raise SourceError(
            f"the tokenizer cannot read a text: {first_sentence(error)}. It is not this model's: fetch both again."
        ) from error
    configured = config.get("eos_token_id")
    is_highest = family.read_at == "CLIP's end token" and configured == _HIGHEST
    check_last(ids, max(ids, default=-1) if is_highest else configured)


def _counts_from_padding(config: Mapping[str, object]) -> bool:
    return config.get("model_type") in ("altclip_text_model", "roberta", "xlm-roberta", "camembert")
