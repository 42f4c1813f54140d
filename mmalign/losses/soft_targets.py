"""InfoNCE with soft targets: a row's answer is not one item alone.

A share of the target is spread over the whole batch (label smoothing, Szegedy et al. 2016), another over the captions
that say about the same (as in SoftCLIP, Gao et al. 2023). Shapes: B batch, b rows of a block.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor

from mmalign.losses.protocol import EmbeddedBatch, Loss, LossConfig, even_targets, share_a_key
from mmalign.losses.rows import mean_both_ways
from mmalign_runtime.spec import Similarity

_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class SoftTargetsConfig(LossConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="soft_targets"):
    """How much of the target goes elsewhere than to the positives.

    Attributes:
        smoothing: Share of the target that is spread evenly over the batch.
        caption_share: Share of the target that goes by the similarity of captions: a softmax of the cosines of the text
            tower's features.
        caption_temperature: Temperature of that softmax.
    """

    smoothing: _Share = 0.1
    caption_share: _Share = 0.0
    caption_temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.1

    def __post_init__(self) -> None:
        """Raise ValueError for shares that leave nothing to the positives."""
        super().__post_init__()
        if self.smoothing + self.caption_share >= 1:
            raise ValueError(
                f"smoothing {self.smoothing} and caption_share {self.caption_share} leave nothing to the right item; "
                "their sum is to be below 1"
            )

    def build(self) -> SoftTargets:
        """Return the loss, before training."""
        return SoftTargets(self)


class SoftTargets(Loss):
    """Each item picks its own out of the batch, and a little of what is like it; a softmax reads its scores."""

    def __init__(self, config: SoftTargetsConfig) -> None:
        super().__init__(config)
        self._config = config

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Return the scalar loss of a batch. Raises ValueError where it lacks captions that are to be compared."""
        config, scale, keys = self._config, self.scale(), batch.keys
        captions = batch.caption_features() if config.caption_share else None
        own_share = 1 - config.smoothing - config.caption_share

        def row_losses(cosines: Tensor, at: slice) -> Tensor:
            targets = own_share * even_targets(share_a_key(keys[at], keys))  # (b, B)
            targets += config.smoothing / len(keys)
            if captions is not None:
                alike = (captions[at] @ captions.T / config.caption_temperature).softmax(dim=1)  # (b, B)
                targets += config.caption_share * alike
            return -(targets * (scale.float() * cosines).log_softmax(dim=1)).sum(dim=1)

        return mean_both_ways(batch.image_embeds, batch.text_embeds, row_losses, self.chunk_size)

    def similarity(self) -> Similarity:
        """Return a softmax of scaled cosines."""
        return Similarity(kind="softmax", scale=self.scale().item())
