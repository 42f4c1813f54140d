"""Batches in which pairs meet that are hard to tell apart: how many, how often they are looked for, and which.

Everything random is drawn from a plan's seed, so a batch is the same for the same neighbours.
Shapes: N pairs, k neighbours.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor

from mmalign.optim import StepPlan
from mmalign.seeds import Stream, seed_of

_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class MiningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hard negatives, mined with the model as it stands. Off at a share of 0, and without this table.

    Attributes:
        share: Share of a batch that is taken from the neighbours of the rest.
        every: Steps between two searches.
        num_neighbours: Nearest wrong captions that are kept of each image, and nearest wrong images of each first
            caption.
        start: Share of the run before the first search.
        ramp: Share of the run in which the neighbours' share of a batch then rises from 0.
    """

    share: _Share
    every: _Positive = 100
    num_neighbours: _Positive = 8
    start: _Share = 0.1
    ramp: _Share = 0.2

    def share_at(self, progress: float) -> float:
        """Return the neighbours' share of a batch at `progress`, 0..1, of the run."""
        if progress < self.start:
            return 0.0
        return self.share * (min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0)


def with_neighbours(plan: StepPlan, neighbours: Tensor, share: float) -> StepPlan:
    """Return a plan in whose batch neighbours of the first pairs take the place of the last, as many as there are.

    `neighbours` (N, k) int64 are rows of pairs, -1 where there are fewer. No pair is there twice.
    """
    num_hard = int(share * len(plan.rows))
    kept, rest = plan.rows[: len(plan.rows) - num_hard], plan.rows[len(plan.rows) - num_hard :]
    near = neighbours[torch.tensor(kept)].flatten()  # (b * k,)
    generator = torch.Generator().manual_seed(seed_of(plan.seed, Stream.HARD))
    drawn = near[torch.randperm(len(near), generator=generator)].tolist()
    chosen = dict.fromkeys([*kept, *(row for row in drawn if row >= 0), *rest])  # each once, in this order
    return msgspec.structs.replace(plan, rows=tuple(chosen)[: len(plan.rows)])
