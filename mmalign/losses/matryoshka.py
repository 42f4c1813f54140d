"""Matryoshka (Kusupati et al. 2022): the first components of a vector are a vector too.

The loss is taken of prefixes as it is of whole vectors, so that an index may keep fewer components. The bundle declares
which. Shapes: B batch, D embedding.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch, Loss
from mmalign.losses.term import Term


class Matryoshka(Term, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="matryoshka"):
    """The loss of shorter vectors: the sum over `dims` of the loss of the first components, made unit vectors again.

    Attributes:
        dims: Components of each prefix, fewer than `model.embed_dim`.
    """

    dims: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1)], ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Raise ValueError for a width that is there twice."""
        if len(set(self.dims)) < len(self.dims):
            raise ValueError(f"dims {list(self.dims)} name one width twice; leave it out")

    def value(self, batch: EmbeddedBatch, loss: Loss) -> Tensor:
        """Return the sum of the losses of the prefixes."""
        losses: list[Tensor] = [loss(_prefix(batch, dim)) for dim in self.dims]
        return sum(losses[1:], start=losses[0])


def _prefix(batch: EmbeddedBatch, dim: int) -> EmbeddedBatch:
    image, text = (functional.normalize(each[:, :dim], dim=-1) for each in (batch.image_embeds, batch.text_embeds))
    return msgspec.structs.replace(batch, image_embeds=image, text_embeds=text)
