"""From a tokenizer of transformers to tokenizer.json and the text spec.

SigLIP's, which transformers runs in Python around sentencepiece, becomes a tokenizer.json and a cleaning: the runtime
cleans and normalises such texts as transformers and sentencepiece do; tokenizer.json holds the table that it does so
by, and the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import SpmConverter

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.refusals import check_last, check_padding_side, first_sentence
from mmalign_export.sources.transformers_families import Family
from mmalign_runtime.spec import Cleaning, TextSpec

_SPACE = "\u2581"
_UNIGRAM = 1  # of sentencepiece's TrainerSpec.ModelType
# The eos_token_id of CLIP's first configurations: a text is read at its highest id.
_HIGHEST = 2
# What stands around a text.
_FEWEST = 2
# transformers writes 10**30 where a tokenizer has no limit.
_NO_LIMIT = 1_000_000


def siglip_cleaning(slow: transformers.SiglipTokenizer) -> Cleaning:
    """Return the cleaning that goes with the converted tokenizer."""
    return "siglip_sentencepiece" if slow.do_lower_case else "siglip_sentencepiece_cased"


def convert_siglip(slow: transformers.SiglipTokenizer) -> Tokenizer:
    """Return a tokenizer that gives the same ids for texts that were cleaned as `siglip_cleaning` says, with the end
    token behind every text. Raises SourceError.
    """
    build: Callable[..., SpmConverter] = SpmConverter
    model = build(slow).proto
    if model.trainer_spec.model_type != _UNIGRAM:
        raise SourceError(
            f"SigLIP's sentencepiece model is of type {model.trainer_spec.model_type}; expected {_UNIGRAM}, unigram. "
            "Save the model with a fast tokenizer."
        )
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=model.trainer_spec.unk_id, byte_fallback=False))
    if table := model.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = normalizers.Precompiled(table)
    # The cleaning marks where a text begins.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never", split=False)
    end = str(slow.eos_token)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, int(slow.eos_token_id))]
    )
    special = sorted({str(token) for token in slow.all_special_tokens})
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


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
