"""What is added to a loss: a weighted number for the same batch, that learns nothing of its own.

Training minimises the loss plus its terms; how a bundle's cosines are read stays the loss's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from torch import Tensor

from mmalign.losses.protocol import EmbeddedBatch, Loss


class Term(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every term has.

    Attributes:
        weight: What the term is multiplied with before it is added to the loss.
    """

    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    def value(self, batch: EmbeddedBatch, loss: Loss) -> Tensor:
        """Return the scalar of a batch, before its weight, computed in float32 whatever autocast says."""
        raise NotImplementedError


def training_loss(loss: Loss, terms: Sequence[Term], batch: EmbeddedBatch) -> Tensor:
    """Return what a step minimises: the loss of a batch and its weighted terms."""
    total: Tensor = loss(batch)
    for term in terms:
        total = total + term.weight * term.value(batch, loss)
    return total
