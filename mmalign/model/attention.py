"""A text looks at the regions of an image: a second score of a pair, and the loss that trains it.

Every region has a token in a space of its own. A text weighs the tokens, anew for each image: a softmax over the
cosines of its query with them. The attended similarity is the mean, by these weights, of the cosines of the text's
value with the tokens. The score is a learned mixture of it and the cosine of the two vectors, which stay as they are:
a search by vectors works alone. Attention of words over regions is from Lee et al. 2018 (SCAN); here a text is one
vector. Shapes: B batch, T texts, I images, N regions, R channels of a region, D embedding.
"""

from __future__ import annotations

import math
from typing import Annotated, cast

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmalign.losses.protocol import EmbeddedBatch, even_targets, share_a_key

_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
# CLIP's (Radford et al. 2021, section 2.5): where the loss begins, and the bound of both temperatures, which learn.
_LOSS_TEMPERATURE = 0.07
_LEAST_TEMPERATURE = 0.01


class AttentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts look at regions of images, for a second stage of search. Off at a weight of 0, and without this table.

    Attributes:
        weight: Factor of its loss beside the main loss.
        dropout: Dropout on the channels of a region, in training.
        temperature: Initial temperature of a text's weights over the regions; it is learned.
        share: Initial share of the attended similarity in the score, the rest being the cosine of the vectors; it is
            learned.
        num_candidates: Negatives that its loss tells a pair apart from: those with the highest cosines, as in a second
            stage. 0 takes all of the batch.
    """

    weight: Annotated[float, msgspec.Meta(ge=0)]
    dropout: _Share = 0.3
    temperature: _Positive = 0.1
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    num_candidates: Annotated[int, msgspec.Meta(ge=0)] = 0


class RegionAttention(nn.Module):
    """What scores texts against the regions of images. `config` says how it begins, `channels` is R."""

    def __init__(self, config: AttentionConfig, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.standardize = nn.BatchNorm1d(channels, affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.token = nn.Linear(channels, embed_dim, bias=False)
        self.query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        for layer in (self.query, self.value):
            nn.init.eye_(layer.weight)  # a text begins by looking for itself
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_LOSS_TEMPERATURE)))
        self.share_logit = nn.Parameter(torch.tensor(math.log(config.share / (1 - config.share))))

    def tokens(self, regions: Tensor) -> Tensor:
        """Return tokens (I, N, D), float32 of unit length, for regions (I, N, R)."""
        standardized = self.standardize(regions.float().flatten(0, 1))  # (I * N, R)
        tokens: Tensor = self.token(self.dropout(standardized))  # (I * N, D)
        return functional.normalize(tokens.float(), dim=-1).reshape(*regions.shape[:2], -1)  # (I, N, D)

    def forward(self, text_embeds: Tensor, image_embeds: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (T, I) and what each text weighs the regions by, (T, I, N), float32 that sum to 1.

        For unit vectors (T, D) and (I, D), and tokens (I, N, D).
        """
        flat = tokens.flatten(0, 1)  # (I * N, D)
        query, value = (functional.normalize(layer(text_embeds), dim=-1) for layer in (self.query, self.value))
        weights = ((query @ flat.T).reshape(-1, *tokens.shape[:2]) / self.log_temperature.exp()).softmax(-1)
        attended = (weights * (value @ flat.T).reshape(-1, *tokens.shape[:2])).sum(-1)  # (T, I)
        share = self.share_logit.sigmoid()
        return (1 - share) * (text_embeds @ image_embeds.T) + share * attended, weights

    def bound(self) -> None:
        """Bring both temperatures back above their bound, as training does after each update."""
        with torch.no_grad():
            self.log_temperature.clamp_(min=math.log(_LEAST_TEMPERATURE))
            self.log_scale.clamp_(max=-math.log(_LEAST_TEMPERATURE))


def attention_loss(attention: RegionAttention, batch: EmbeddedBatch, chunk_size: int = 0) -> Tensor:
    """Return the loss of a batch with regions, times its weight, a float32 scalar: InfoNCE of the scores, both ways.

    `chunk_size` texts look at a time, so that (B, B, N) is never held, or all where it is 0. Float32 whatever autocast
    says. Raises ValueError for a batch without regions.
    """
    if batch.regions is None:
        raise ValueError("the attention looks at regions, and the batch has none; give `regions`")
    with torch.autocast(device_type=batch.regions.device.type, enabled=False):
        image, text = batch.image_embeds.float(), batch.text_embeds.float()
        scores = _scores(attention, text, image, attention.tokens(batch.regions), chunk_size)  # (B, B)
        positives = share_a_key(batch.keys)
        cosines = (text @ image.T).detach()
        logits = attention.log_scale.exp() * scores
        num_candidates = attention.config.num_candidates
        by_text = _row_loss(logits, positives, cosines, num_candidates)
        by_image = _row_loss(logits.T, positives.T, cosines.T, num_candidates)
        return attention.config.weight * (by_text + by_image) / 2


def _scores(attention: RegionAttention, text: Tensor, image: Tensor, tokens: Tensor, chunk_size: int) -> Tensor:
    if not 0 < chunk_size < len(text):
        return cast("Tensor", attention(text, image, tokens)[0])

    def score(some: Tensor) -> Tensor:
        return cast("Tensor", attention(some, image, tokens)[0])

    blocks = [
        checkpoint(score, some, use_reentrant=False, preserve_rng_state=False) for some in torch.split(text, chunk_size)
    ]
    return torch.cat(blocks)  # (B, B)


def _row_loss(logits: Tensor, positives: Tensor, cosines: Tensor, num_candidates: int) -> Tensor:
    """Return InfoNCE's mean over rows (B, B), each against its positives and its `num_candidates` nearest negatives."""
    targets = even_targets(positives)
    if 0 < num_candidates < logits.shape[1]:
        nearest = cosines.masked_fill(positives, -math.inf).topk(num_candidates, dim=1).indices
        is_kept = positives.scatter(1, nearest, torch.ones_like(nearest, dtype=torch.bool))
        logits = logits.masked_fill(~is_kept, torch.finfo(logits.dtype).min)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
