"""Training without near-synonyms of what is evaluated: a score is then of concepts that no other name taught.

Captions are compared by the text tower's features. Shapes: T pairs of training, E captions evaluated, F features.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import torch
from torch.nn import functional

from mmalign.data import Splits
from mmalign.features import TextFeatures
from mmalign.run.pairs import SourcePairs, check_enough

logger = logging.getLogger(__name__)

_NUM_ROWS = 1024


def without_near_synonyms(
    splits: Splits, sources: Sequence[SourcePairs], limit: float | None, texts: TextFeatures, *, is_trial: bool = False
) -> Splits:
    """Return the splits without training pairs whose first caption is near one of validation or test, in any source.

    Near is a cosine of at least `limit`; None keeps all. The log counts them, but for a trial.
    Raises TrainingError when too few pairs are left.
    """
    if limit is None:
        return splits
    trained = [pair.captions[0] for pair in splits.train]
    sides = [side for source in sources for side in (source.splits.val, source.splits.test)]
    evaluated = sorted({pair.captions[0] for side in sides for pair in side})
    if not evaluated:
        return splits
    near = _unit(texts.of(evaluated, "evaluated captions")).T  # (F, E)
    blocks = torch.split(_unit(texts.of(trained, "training captions")), _NUM_ROWS)  # so that (T, E) is never held
    nearest = torch.cat([(block @ near).amax(dim=1) for block in blocks])  # (T,)
    kept = tuple(pair for pair, cosine in zip(splits.train, nearest.tolist(), strict=True) if cosine < limit)
    logger.log(
        logging.DEBUG if is_trial else logging.INFO,
        "%d of %d training pairs are left out: their first caption is within cosine %g of one of validation or test",
        *(len(splits.train) - len(kept), len(splits.train), limit),
    )
    guarded = msgspec.structs.replace(splits, train=kept)
    check_enough(guarded)
    return guarded


def _unit(features: torch.Tensor) -> torch.Tensor:
    return functional.normalize(features, dim=-1)
