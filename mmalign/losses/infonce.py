"""The contrastive loss: symmetric InfoNCE (van den Oord et al. 2018) with several positives a row.

Pairs that share a key (a concept, an image) are positives together, never negatives: each row's target is spread evenly
over its positives, as in UniCL (Yang et al. 2022). With all keys different it is CLIP's loss.
Shapes: B batch, D embedding, K keys a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, share_a_key
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
        return contrastive_loss(batch.image_embeds, batch.text_embeds, self.scale(), batch.keys)

    def similarity(self) -> Similarity:
        """Return a softmax of scaled cosines."""
        return Similarity(kind="softmax", scale=self.scale().item())


def contrastive_loss(image_embeds: Tensor, text_embeds: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    """Return the scalar loss, float32, of B pairs.

    `image_embeds` and `text_embeds` are (B, D) unit vectors, `scale` multiplies cosines, and pairs show the same thing
    where `keys`, (B,) or (B, K) int64, are equal in any column. Computed in float32 whatever autocast says.
    """
    with torch.autocast(device_type=image_embeds.device.type, enabled=False):
        logits = scale.float() * image_embeds.float() @ text_embeds.float().T  # (B, B)
        positives = share_a_key(keys.reshape(len(keys), -1)).float()  # (B, B)
        targets = positives / positives.sum(dim=1, keepdim=True)  # rows sum to 1; symmetric in its support
        image_to_text = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        text_to_image = -(targets * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        return (image_to_text + text_to_image) / 2
