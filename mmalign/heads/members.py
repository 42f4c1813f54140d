"""Several heads of a side that learn apart and are served as one: an ensemble of projections.

Every member gives unit vectors of its own and has a loss of its own. Side by side they are projected onto the
directions in which the vectors of both sides vary most (principal components, not centred), as many as the space has
dimensions: a cosine there is nearly the mean of the members' cosines. The directions come from second moments gathered
in training, so they are there for towers that learn and for shards that are read once too, and a first part of the
components is the best of its length. Shapes: M members, B batch, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# M * D. Joining takes the cube of it: 6 s at 2,048 on two busy cores, at every validation.
LARGEST_JOINT = 4096
_EVERY = 4  # steps: the product of (M * D, B) and (B, M * D) takes as long as a member
_KEPT = 0.95  # of what was gathered before


class Members(nn.Module):
    """The heads of one side, (B, F) -> (B, D)."""

    directions: Tensor

    def __init__(self, heads: Sequence[nn.Module], embed_dim: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(heads)
        self.register_buffer("directions", torch.eye(len(heads) * embed_dim, embed_dim), persistent=False)

    def apart(self, features: Tensor) -> list[Tensor]:
        """Return each member's unit vectors, M of (B, D) float32."""
        return [functional.normalize(head(features).float(), dim=-1) for head in self.each]

    def forward(self, features: Tensor) -> Tensor:
        """Return the vectors of all as one, (B, D), not of unit length."""
        return torch.cat(self.apart(features), dim=-1) @ self.directions


class JointSpace(nn.Module):
    """What the members of both sides share: the second moments of their vectors."""

    moments: Tensor

    def __init__(self, num_members: int, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.register_buffer("moments", torch.zeros(num_members * embed_dim, num_members * embed_dim))

    @torch.no_grad()
    def gather(self, step: int, images: Sequence[Tensor], texts: Sequence[Tensor]) -> None:
        """Take in the members' vectors of a step, M of (B, D) a side; only those of some steps are needed."""
        if step % _EVERY:
            return
        with torch.autocast(self.moments.device.type, enabled=False):
            vectors = torch.cat([torch.cat(list(side), dim=-1) for side in (images, texts)])  # (2 * B, M * D)
            self.moments.mul_(_KEPT).addmm_(vectors.T, vectors)

    def join(self, *sides: Members) -> None:
        """Let the members of both sides be projected onto the directions of the moments as they stand."""
        _, vectors = torch.linalg.eigh(self.moments.double().cpu())  # in columns, the last the most
        leading = vectors.flip(1)[:, : self.embed_dim]  # (M * D, D)
        sign = leading.gather(0, leading.abs().argmax(0, keepdim=True)).sign()  # eigh gives either
        for side in sides:
            side.directions.copy_(leading * sign)
