"""The sigmoid loss of SigLIP (Zhai et al. 2023) with several positives: every cell of a batch is a yes or a no.

No softmax over the batch: an image and a text match with probability sigmoid(scale * cosine + bias), whatever else the
batch has. Pairs that share a key match. Shapes: B batch, b rows of a block, D embedding, K keys a pair.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, share_a_key
from mmalign.losses.rows import mean_over_rows
from mmalign_runtime.spec import Similarity


class SigmoidConfig(LossConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sigmoid"):
    """The initial temperature and bias: the paper's scale of 10 and bias of -10, so that training begins with "no".

    Attributes:
        bias: Initial bias of a logit. It is fixed where `learn_bias` is false.
        learn_bias: Whether the bias is trained.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    bias: float = -10.0
    learn_bias: bool = True

    def build(self) -> SigmoidLoss:
        """Return the loss, before training."""
        return SigmoidLoss(self)


class SigmoidLoss(Loss):
    """Each pair of the batch matches or does not; a sigmoid reads its score."""

    logit_bias: Tensor

    def __init__(self, config: SigmoidConfig) -> None:
        super().__init__(config)
        self.register("logit_bias", config.bias, learns=config.learn_bias)

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch."""
        vectors = batch.image_embeds, batch.text_embeds
        return sigmoid_loss(*vectors, self.scale(), self.logit_bias, batch.keys, self.chunk_size)

    def similarity(self) -> Similarity:
        """Return a sigmoid of scaled and shifted cosines."""
        return Similarity(kind="sigmoid", scale=self.scale().item(), bias=self.logit_bias.item())


def sigmoid_loss(
    image_embeds: Tensor, text_embeds: Tensor, scale: Tensor, bias: Tensor, keys: Tensor, chunk_size: int = 0
) -> Tensor:
    """Return the scalar loss, float32, of B pairs: the sum over all B x B cells, divided by B as in the paper.

    `image_embeds` and `text_embeds` are (B, D) unit vectors, `scale * cosine + bias` is a logit, and pairs match where
    `keys`, (B,) or (B, K) int64, are equal in any column. Computed in float32 whatever autocast says, `chunk_size` rows
    at a time, or all where it is 0.
    """

    def row_losses(cosines: Tensor, at: slice) -> Tensor:
        logits = scale.float() * cosines + bias.float()  # (b, B)
        return -functional.logsigmoid(torch.where(share_a_key(keys[at], keys), logits, -logits)).sum(dim=1)

    # One way has every cell of the matrix already.
    return mean_over_rows(image_embeds, text_embeds, row_losses, chunk_size)
