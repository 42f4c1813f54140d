"""The search for hard negatives: pairs that the model, as it stands, takes for each other.

Found exactly, over all training pairs: the nearest wrong captions of each image, and the nearest wrong images of each
caption. Pairs that share a concept or an image are never wrong. Shapes: N pairs, b rows of a block, D embedding,
k neighbours each way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from mmalign.features.embedded_pairs import EmbeddedPairs
from mmalign.hard_batches import MiningConfig, with_neighbours
from mmalign.losses.protocol import share_a_key
from mmalign.optim import Schedule, StepPlan

logger = logging.getLogger(__name__)

NEIGHBOURS = "neighbours"
_BLOCK = 1024  # rows whose cosines with all pairs are held at a time


class Miner:
    """Looks for neighbours when it is time, and puts them into plans.

    `state` is where the neighbours (N, 2k) int64 are kept. Checkpoints have it, so that a resumed run goes on with
    them.
    """

    def __init__(
        self, config: MiningConfig, schedule: Schedule, pairs: EmbeddedPairs, keys: Tensor, state: dict[str, Tensor]
    ) -> None:
        self._config = config
        self._schedule = schedule
        self._pairs = pairs
        self._keys = keys
        self._state = state

    def windows(self, plans: Iterable[StepPlan]) -> Iterator[Iterator[StepPlan]]:
        """Yield the plans between two searches, each window after its search: no step of it may be prepared before.

        Those before the first search are a window of their own: workers prepare steps of one ahead.
        """
        for _, window in groupby(plans, lambda plan: (plan.step // self._config.every, self._share(plan) > 0)):
            yield map(self._composed, window)

    def _share(self, plan: StepPlan) -> float:
        return self._config.share_at(plan.step / self._schedule.num_steps)

    def _composed(self, plan: StepPlan) -> StepPlan:
        share = self._share(plan)
        if not share:
            return plan
        if NEIGHBOURS not in self._state or plan.step % self._config.every == 0:
            self._search(plan.step)
        return with_neighbours(plan, self._state[NEIGHBOURS], share)

    def _search(self, step: int) -> None:
        started = time.perf_counter()
        image_embeds, text_embeds = self._pairs.embed()  # (N, D) each
        count = self._config.num_neighbours
        ways = (image_embeds, text_embeds), (text_embeds, image_embeds)
        found = [nearest_wrong(queries, items, self._keys, count) for queries, items in ways]
        self._state[NEIGHBOURS] = torch.cat(found, dim=1)  # (N, 2k)
        logger.info("step %d: hard negatives mined in %.1f s", step, time.perf_counter() - started)


def nearest_wrong(queries: Tensor, items: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return the `count` items (N, k) int64 nearest to each query (N, D) that share no key (N, K) with it.

    Fewer where there are no more: then -1.
    """
    keys = keys.to(queries.device)
    count = min(count, len(items))
    found = []
    for rows in range(0, len(queries), _BLOCK):
        at = slice(rows, rows + _BLOCK)
        cosines = (queries[at] @ items.T).masked_fill_(share_a_key(keys[at], keys), -torch.inf)  # (b, N)
        best = cosines.topk(count, dim=1)
        found.append(best.indices.masked_fill(best.values.isinf(), -1))  # (b, k)
    return torch.cat(found).cpu()
