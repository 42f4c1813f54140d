"""Averages of the weights over training, which are often better than the last ones: what is validated and exported.

They cost memory, a copy of what learns or several, and no time to speak of. They lie among what checkpoints keep, so
that a run that was cut goes on with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import msgspec
import torch
from torch import Tensor

from mmalign.checkpoints.checkpoint import KEPT, learned_state
from mmalign.model import DualEncoder
from mmalign.optim import Schedule

# Names in checkpoints: the average as it stands, and, for the mean of epochs, the weights after each of them.
AVERAGE = "average."
_EPOCH = "epoch"


class NoAverage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="none"):
    """No average: the weights as they stand are validated and exported."""


class Ema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="ema"):
    """The exponential moving average of the weights over updates (Polyak and Juditsky 1992), one copy of what learns.

    Attributes:
        decay: Share of the average that an update keeps. After n updates it is at most (1 + n) / (10 + n), so that the
            average forgets where the weights began.
    """

    decay: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.999


class LastEpochs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="epochs"):
    """The mean of the weights after each of the last epochs (Izmailov et al. 2018), as many copies as epochs and one.

    Attributes:
        count: How many epochs. Before there are as many, the mean is of those that there are.
    """

    count: Annotated[int, msgspec.Meta(ge=2)] = 5


AnyAverage: TypeAlias = NoAverage | Ema | LastEpochs


class Averaging:
    """The average of a model's weights.

    `kept` is where it lies: what checkpoints keep.
    """

    def __init__(self, config: AnyAverage, model: DualEncoder, schedule: Schedule, kept: dict[str, Tensor]) -> None:
        self._config = config
        self._model = model
        self._schedule = schedule
        self._kept = kept

    def take(self, step: int) -> None:
        """Take the weights into the average, after the update that ends with `step`."""
        if isinstance(self._config, Ema):
            num_updates = step // self._schedule.accumulate
            self._mix(min(self._config.decay, (1 + num_updates) / (10 + num_updates)))
        elif isinstance(self._config, LastEpochs) and (epoch := self._epoch_that_ends(step)) is not None:
            self._put(f"{_EPOCH}{epoch % self._config.count}.", learned_state(self._model))
            self._put(AVERAGE, self._mean(min(self._config.count, epoch + 1)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average in the place of its weights, where there is one."""
        state = learned_state(self._model)
        average = {name: self._kept[f"{AVERAGE}{name}"] for name in state if f"{AVERAGE}{name}" in self._kept}
        own = {name: state[name].detach().clone() for name in average}
        _copy(average, state)
        try:
            yield
        finally:
            _copy(own, state)

    def _mix(self, decay: float) -> None:
        for name, tensor in learned_state(self._model).items():
            now, kept = tensor.detach(), self._kept.get(f"{AVERAGE}{name}")
            if kept is None or not now.is_floating_point():
                self._kept[f"{AVERAGE}{name}"] = now.clone()
            else:
                self._kept[f"{AVERAGE}{name}"] = kept.to(now.device).lerp(now, 1 - decay)

    def _epoch_that_ends(self, step: int) -> int | None:
        """Return the epoch whose last update this is, or None: an update may go on into the next epoch."""
        last = step
        first = self._schedule.update_window(step).start
        ended = [each for each in range(first, last + 1) if self._schedule.ends_epoch(each)]
        return self._schedule.epoch_of(ended[-1]) if ended else None

    def _put(self, prefix: str, state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            self._kept[f"{prefix}{name}"] = tensor.detach().clone()

    def _mean(self, num_slots: int) -> dict[str, Tensor]:
        found = {}
        for name, tensor in learned_state(self._model).items():
            slots = (self._kept.get(f"{_EPOCH}{slot}.{name}") for slot in range(num_slots))
            epochs = torch.stack([each.to(tensor.device) for each in slots if each is not None])
            found[name] = epochs.mean(dim=0) if tensor.is_floating_point() else tensor
        return found


def averaged_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors with the average, where it has one, in the place of the weights."""
    start = f"{KEPT}{AVERAGE}"
    return tensors | {name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)}


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)
