"""Which steps there are: what pairs each takes, and on which of them an epoch or an update ends.

Steps count from 0. Their plans are drawn from the seed and the step, so that they can start anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch

from mmalign.seeds import seed_of


class Schedule(msgspec.Struct, frozen=True):
    """The steps of a run: `accumulate` of them make one update; an epoch leaves its incomplete last batch out."""

    num_pairs: int
    batch_size: int
    epochs: int
    accumulate: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches; `batch_size` is at most `num_pairs`."""
        return self.num_pairs // self.batch_size

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def epoch_of(self, step: int) -> int:
        """Return the epoch that a step is in, counted from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Say whether a step is its epoch's last."""
        return (step + 1) % self.steps_per_epoch == 0

    def is_validated(self, step: int, validate_every: int) -> bool:
        """Say whether validation follows a step: each `validate_every` epochs, and at the end."""
        is_due = self.ends_epoch(step) and (self.epoch_of(step) + 1) % validate_every == 0
        return is_due or step + 1 == self.num_steps

    def update_window(self, step: int) -> range:
        """Return the steps whose gradients make one update together with this one's; the run's last may be shorter."""
        start = step - step % self.accumulate
        return range(start, min(start + self.accumulate, self.num_steps))

    def ends_update(self, step: int) -> bool:
        """Say whether the weights change after a step."""
        return step + 1 == self.update_window(step).stop


class StepPlan(msgspec.Struct, frozen=True):
    """Which pairs make a step, and the seed of all that is random about it."""

    step: int
    rows: tuple[int, ...]
    seed: int


def plan_steps(schedule: Schedule, seed: int, first_step: int = 0) -> Iterator[StepPlan]:
    """Yield the plans from `first_step` on: each epoch a new permutation of the pairs."""
    order: list[int] = []
    for step in range(first_step, schedule.num_steps):
        epoch = schedule.epoch_of(step)
        start = step % schedule.steps_per_epoch * schedule.batch_size
        if start == 0 or not order:
            generator = torch.Generator().manual_seed(seed_of(seed, epoch))
            order = torch.randperm(schedule.num_pairs, generator=generator).tolist()
        yield StepPlan(step, tuple(order[start : start + schedule.batch_size]), seed_of(seed, epoch, step))
