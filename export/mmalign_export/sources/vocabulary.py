"""A tokenizer held to the rows of its text tower: each id has a vector, and most of the vectors have an id."""

from __future__ import annotations

import json
import logging

from tokenizers import Tokenizer

from mmalign_export.errors import SourceError

logger = logging.getLogger(__name__)

# Of the text tower's vectors. Published towers have more of them than tokens, to round their number or for tokens to
# come; of those looked up, open_clip's coca_base has fewest in use (49,408 of 64,000).
_FEWEST_USED = 0.5


def fitted_tokenizer(tokenizer: Tokenizer, num_embeddings: int) -> Tokenizer:
    """Return the tokenizer without added tokens that the text tower has no vector for; usually it has none of those.

    T5's hundred `<extra_id_N>` are such tokens in open_clip's SigLIP (32,100 tokens, 32,000 vectors): the library fails
    on a text that holds one. Raises SourceError for another token without a vector, and for few tokens.
    """
    ids = tokenizer.get_vocab()
    num_tokens = 1 + max(ids.values())
    without = {token for token, number in ids.items() if number >= num_embeddings}
    added = {each.content for each in tokenizer.get_added_tokens_decoder().values()}
    if not without <= added or num_tokens < num_embeddings * _FEWEST_USED:
        raise SourceError(
            f"the tokenizer has {num_tokens} tokens, and the text tower vectors for {num_embeddings}: they are not of "
            "one model. Fetch both again."
        )
    if not without:
        return tokenizer
    logger.info("import: %d added tokens have no vector, and are read as text: %s", len(without), min(without))
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [each for each in described["added_tokens"] if each["content"] not in without]
    pieces = described["model"]["vocab"]  # by id, or ids by piece
    described["model"]["vocab"] = (
        pieces[:num_embeddings]
        if isinstance(pieces, list)
        else {piece: number for piece, number in pieces.items() if piece not in without}
    )
    fitted = Tokenizer.from_str(json.dumps(described))
    if max(fitted.encode("").ids, default=0) >= num_embeddings:
        raise SourceError(
            "the tokenizer puts a token into every text that has no vector among the text tower's "
            f"{num_embeddings}: they are not of one model. Fetch both again."
        )
    return fitted
