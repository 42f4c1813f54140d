"""InfoNCE in which hard negatives weigh more: HN-NCE (Robinson et al. 2021; for image and text Radenovic et al. 2023).

In the denominator of a row each negative is weighted by exp(beta * logit), the weights of a row being 1 in the mean.
With beta = 0 it is InfoNCE. What looks like a negative and says the same can be left out by the captions' similarity.
Shapes: B batch, b rows of a block, D embedding, K keys a pair.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor

from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, even_targets, share_a_key
from mmalign.losses.rows import mean_both_ways
from mmalign_runtime.spec import Similarity

_NOTHING = -1e9  # a logit whose exponential is 0; finite, since differences of infinities have no gradient


class HardNegativesConfig(LossConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hard_negatives"):
    """InfoNCE with weighted negatives.

    Attributes:
        beta: How much more hard negatives weigh: their weight grows with exp(beta * logit). 0 weighs all alike.
        alpha: Weight of the positives in the denominator. 0 leaves them out.
        max_caption_similarity: Cosine of two captions, by the text tower's features, above which their pairs are not
            negatives of each other. Not set: only pairs of one concept or one image are spared.
    """

    beta: Annotated[float, msgspec.Meta(ge=0)] = 0.25
    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    max_caption_similarity: Annotated[float, msgspec.Meta(gt=-1, lt=1)] | None = None

    def build(self) -> HardNegatives:
        """Return the loss, before training."""
        return HardNegatives(self)


class HardNegatives(Loss):
    """Each item picks its own out of the batch, the harder it is the more; a softmax reads its scores."""

    def __init__(self, config: HardNegativesConfig) -> None:
        super().__init__(config)
        self._config = config

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch. Raises ValueError where it lacks captions that are to be compared."""
        config, scale = self._config, self.scale()
        keys, limit = batch.keys, config.max_caption_similarity
        captions = batch.caption_features() if limit is not None else None

        def row_losses(cosines: Tensor, at: slice) -> Tensor:
            positives = share_a_key(keys[at], keys)  # (b, B)
            negatives = ~positives
            if captions is not None and limit is not None:
                negatives &= captions[at] @ captions.T <= limit
            return reweighted(scale.float() * cosines, positives, negatives, config.alpha, config.beta)

        return mean_both_ways(batch.image_embeds, batch.text_embeds, row_losses, self.chunk_size)

    def similarity(self) -> Similarity:
        """Return a softmax of scaled cosines."""
        return Similarity(kind="softmax", scale=self.scale().item())


def reweighted(logits: Tensor, positives: Tensor, negatives: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the losses (b,) of rows of logits (b, B), of which some are positives, some negatives and some neither.

    A row's n negatives x have the weights n exp(beta x) / sum exp(beta x), positives `alpha`: the loss is the mean,
    over the positives, of the log of the weighted sum of all exponentials, less the positive's logit.
    """
    count = negatives.sum(dim=1)  # (b,)
    of_positives = logits.masked_fill(~positives, _NOTHING).logsumexp(dim=1)
    weighted = ((1 + beta) * logits).masked_fill(~negatives, _NOTHING).logsumexp(dim=1)
    weights = (beta * logits).masked_fill(~negatives, _NOTHING).logsumexp(dim=1)
    of_negatives = torch.where(count > 0, count.clamp(min=1).log() + weighted - weights, _NOTHING)
    if alpha == 0:
        total = torch.where(count > 0, of_negatives, of_positives)  # without negatives there is nothing to learn
    else:
        total = torch.logaddexp(of_positives + torch.tensor(alpha, device=logits.device).log(), of_negatives)
    return total - (even_targets(positives) * logits).sum(dim=1)
