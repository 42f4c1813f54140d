"""SigLIP's tokenizer, which transformers runs in Python around sentencepiece, as a tokenizer.json and a cleaning.

The runtime cleans and normalises such texts as transformers and sentencepiece do; tokenizer.json holds the table that
it does so by, and the pieces.
"""

from __future__ import annotations

from collections.abc import Callable

import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import SpmConverter

from mmalign_export.errors import SourceError
from mmalign_runtime.spec import Cleaning

_SPACE = "\u2581"
_UNIGRAM = 1  # of sentencepiece's TrainerSpec.ModelType


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
