"""Stage 1 of the proof: the ids of texts in many scripts are those of the library's own tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from mmalign.dual_model import TextModelTower
from mmalign_export.errors import ProofError
from mmalign_export.sources.protocol import Original
from mmalign_runtime.spec import ProofStage, TextSpec

logger = logging.getLogger(__name__)

# Texts whose ids may differ: a tokenizer converted from another library's is not it in every corner.
DIFFERING_SHARE = 0.01
_SHOWN = 40


def prove_tokens(tower: TextModelTower, original: Original, texts: Sequence[str]) -> tuple[frozenset[str], ProofStage]:
    """Return the texts whose ids differ, at most `DIFFERING_SHARE` of them, and the stage. Raises ProofError."""
    ours = _token_ids(tower, texts)
    theirs = original.token_ids(texts)
    pairs = zip(texts, ours, theirs, strict=True)
    differing = [(text, mine, its) for text, mine, its in pairs if not same_ids(mine, its, tower.spec)]
    bound = int(DIFFERING_SHARE * len(texts))
    named = "; ".join(f"{text[:_SHOWN]!r}: {mine[:8]} for {its[:8]}" for text, mine, its in differing[:5])
    if len(differing) > bound:
        raise ProofError(
            f"token ids: {len(differing)} of {len(texts)} texts have other ids than {original.library} gives, at most "
            f"{bound} may: {named}. The tokenizer, its cleaning or its padding is not the library's."
        )
    if differing:
        logger.warning("proof: %d of %d texts have other token ids: %s", len(differing), len(texts), named)
    stage = ProofStage(stage="token ids", tower="text", num_cases=len(texts), largest=len(differing), bound=bound)
    return frozenset(text for text, _, _ in differing), stage


def _token_ids(tower: TextModelTower, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's ids alone, with the padding that the tower sees of it."""
    rows = (tower.prepare([text])["input_ids"][0] for text in texts)
    return [cast("list[int]", row.tolist()) for row in rows]


def same_ids(ours: list[int], theirs: list[int], spec: TextSpec) -> bool:
    """Say whether two rows are the same, beside padding where the spec pads only to the longest text of a batch."""
    if spec.padding == "fixed":
        return ours == theirs
    short, long = sorted((ours, theirs), key=len)
    rest = len(long) - len(short)
    tokens, padding = (long[:-rest], long[-rest:]) if spec.padding_side == "right" else (long[rest:], long[:rest])
    return ours == theirs if not rest else tokens == short and set(padding) == {spec.pad_token_id}
