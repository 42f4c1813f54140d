"""Says how many captions lose their end, a text of more tokens than the context holds being cut without an error; and
which pair has one that cannot be tokenized at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mmalign.data import Pair
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.tokenizer import TextTokenizer, check_text

logger = logging.getLogger(__name__)

# Tokenizing 100,000 captions took 12 s on two busy cores: of more than these a sample is counted, evenly spread.
_MOST = 20_000


def report_truncated(pairs: Iterable[Pair], tokenizer: TextTokenizer) -> int:
    """Count the distinct captions that are cut, log the count where there are any, and return it.

    Of very many captions a sample is counted, and the log says so. Raises ItemError, naming the pair, for one that
    cannot be tokenized.
    """
    pairs = tuple(pairs)
    for index, pair in enumerate(pairs):
        check_captions(pair, tokenizer.spec, index)
    captions = list(dict.fromkeys(caption for pair in pairs for caption in pair.captions))
    counted = captions[:: -(-len(captions) // _MOST)] if captions else []
    count = int(tokenizer.encode(counted).truncated.sum())
    if count:
        sample = "" if len(counted) == len(captions) else f", in a sample of {len(captions)}"
        logger.warning(
            "%d of %d captions have more than %d tokens and lose their end (text.context_length)%s",
            *(count, len(counted), tokenizer.spec.context_length, sample),
        )
    return count


def check_captions(pair: Pair, spec: TextSpec, index: int) -> None:
    """Raise ItemError that names the pair's origin where a caption cannot be tokenized."""
    for caption in pair.captions:
        try:
            check_text(caption, index, spec)
        except ItemError as error:
            raise ItemError(index, f"{pair.origin}: {error.source}", error.stage, error.reason) from error
