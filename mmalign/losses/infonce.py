"""The contrastive loss: symmetric InfoNCE (van den Oord et al. 2018) with several positives a row.

Pairs that share a key (a concept, an image) are positives together, never negatives: each row's target is spread evenly
over its positives, as in UniCL (Yang et al. 2022). With all keys different it is CLIP's loss.
Shapes: B batch, b rows of a block, D embedding, K keys a pair.
"""

from __future__ import annotations

from torch import Tensor

from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, even_targets, share_a_key
from mmalign.losses.rows import mean_both_ways
from mmalign_runtime.spec import Similarity


class InfoNCEConfig(LossConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="infonce"):
    """The configuration of InfoNCE: the temperature alone."""

    def build(self) -> InfoNCE:
        """Return the loss, before training."""
        return InfoNCE(self)


class InfoNCE(Loss):
    """Each item picks its own out of the batch, both ways; a softmax reads its scores."""

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch."""
        return contrastive_loss(batch.image_embeds, batch.text_embeds, self.scale(), batch.keys, self.chunk_size)

    def similarity(self) -> Similarity:
        """Return a softmax of scaled cosines."""
        return Similarity(kind="softmax", scale=self.scale().item())


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, scale: Tensor, keys: Tensor, chunk_size: int = 0
) -> Tensor:
    """Return the scalar loss, float32, of B pairs.

    `image_embeds` and `text_embeds` are (B, D) unit vectors, `scale` multiplies cosines, and pairs show the same thing
    where `keys`, (B,) or (B, K) int64, are equal in any column. Computed in float32 whatever autocast says,
    `chunk_size` rows at a time, or all where it is 0.
    """

    def row_losses(cosines: Tensor, at: slice) -> Tensor:
        targets = even_targets(share_a_key(keys[at], keys))  # (b, B)
        return -(targets * (scale.float() * cosines).log_softmax(dim=1)).sum(dim=1)

    return mean_both_ways(image_embeds, text_embeds, row_losses, chunk_size)
