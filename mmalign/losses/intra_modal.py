"""An image and another view of it, drawn by augmentation, have vectors alike (as SLIP adds to CLIP, Mu et al. 2022).

Shapes: B batch, D embedding.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor

from mmalign.losses.infonce import contrastive_loss
from mmalign.losses.protocol import EmbeddedBatch, Loss
from mmalign.losses.term import Term


class IntraModal(Term, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="intra_modal"):
    """InfoNCE between the vectors of images and of other views of them.

    A frozen image tower needs `train.num_views`: a step takes two of an image's cached views, the clean one among them.
    Of streamed shards nothing is cached, and no views are needed.

    Attributes:
        temperature: Temperature of this term, which is fixed.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.1

    def value(self, batch: EmbeddedBatch, loss: Loss) -> Tensor:
        """Return InfoNCE of images and views. Raises ValueError for a batch without views."""
        if batch.view_embeds is None:
            raise ValueError("the term 'intra_modal' needs a second view of each image; give `view_embeds`")
        scale = torch.tensor(1.0 / self.temperature, device=batch.image_embeds.device)
        return contrastive_loss(batch.image_embeds, batch.view_embeds, scale, batch.keys, loss.chunk_size)
