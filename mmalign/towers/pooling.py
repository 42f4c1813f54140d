"""How the token vectors of a text become one vector.

Shapes: B batch, L text tokens, F features.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

# "cls": the first token; "mean" and "max": over the tokens that are not padding; "last": the last of them, the only one
# that sees the whole text in a causal tower (GPT-2, Qwen; CLIP's end-of-text token).
Pooling = Literal["cls", "mean", "last", "max"]
# "attention": by weights that are learned, see `AttentionPool`.
TowerPooling: TypeAlias = Literal[Pooling, "attention"]


def pool_tokens(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return (B, F) for token vectors (B, L, F) and their mask (B, L), of which each row has at least one 1.

    Padding may be on either side, except for "cls", which reads the first position.
    """
    if pooling == "cls":
        return hidden[:, 0]  # (B, F)
    if pooling == "last":
        return _last(hidden, attention_mask)
    mask = attention_mask.unsqueeze(-1)  # (B, L, 1)
    if pooling == "max":
        return hidden.masked_fill(mask == 0, torch.finfo(hidden.dtype).min).amax(dim=1)  # (B, F)
    weights = mask.to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (B, F)


def _last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    positions = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)  # (L,)
    last = (attention_mask * positions).argmax(dim=1)  # (B,): of tokens alone, since padding counts 0
    index = last.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])  # (B, 1, F)
    return hidden.gather(1, index).squeeze(1)  # (B, F)


class AttentionPool(nn.Module):
    """A learned query that weighs the tokens of a text, (B, L, F) -> (B, F) (Lin et al. 2017, with one query).

    The query begins at zero, so that pooling begins as the mean. Padding has no weight.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, F) for token vectors (B, L, F) and their mask (B, L), of which each row has at least one 1."""
        scores = (hidden * self.query).float().sum(dim=-1) * self.query.shape[0] ** -0.5  # (B, L)
        scores = scores.masked_fill(attention_mask == 0, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=1).to(hidden.dtype).unsqueeze(-1)  # (B, L, 1)
        pooled: Tensor = (hidden * weights).sum(dim=1)  # (B, F)
        return pooled
