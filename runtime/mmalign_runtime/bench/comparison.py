"""What a comparison found: every candidate with its figures, those refused with the reason, and the one to take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mmalign_runtime.bench.environment import Environment
from mmalign_runtime.bench.quiet import Quietness
from mmalign_runtime.bench.workload import Skipped
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.profile import Goal, Measured, Profile
from mmalign_runtime.spec import Modality


class Lap(msgspec.Struct, frozen=True):
    """One kind of items at one batch size: the seconds that each request took, and how many items a request had."""

    kind: Modality
    batch_size: int
    seconds: tuple[float, ...]
    items_per_request: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One config with its figures, of every batch size it was measured with.

    `is_final` says whether it was measured to the end; only such are recommended.
    """

    config: RuntimeConfig
    is_final: bool
    measured: tuple[Measured, ...]

    def best(self, goal: Goal) -> tuple[Measured, ...]:
        """Return the figures of the batch size that suits the goal, one of each kind of items."""
        kinds = dict.fromkeys(row.kind for row in self.measured)
        return tuple(
            max((row for row in self.measured if row.kind == kind), key=lambda row: _speed(row, goal)) for kind in kinds
        )

    def score(self, goal: Goal) -> float:
        """Return the geometric mean of its speeds over the kinds of items; more is better."""
        return float(np.exp(np.mean([np.log(_speed(row, goal)) for row in self.best(goal)])))


class Refused(msgspec.Struct, frozen=True):
    """A config that did not load, or whose vectors are not the bundle's, and why."""

    config: RuntimeConfig
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates, fastest first. `recommended` is among them, and None when nothing can be recommended.

    `environment` is that of the `default`. `profile` is what `Embedder.load` takes, None where nothing is recommended.
    """

    environment: Environment
    goal: Goal
    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    recommended: RuntimeConfig | None
    default: RuntimeConfig
    profile: Profile | None
    quietness: Quietness
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def of(self, config: RuntimeConfig) -> Candidate | None:
        """Return what was measured of a config, None for one that was refused."""
        return next((found for found in self.candidates if found.config == config), None)


def summed_up(config: RuntimeConfig, laps: Sequence[Lap], *, is_final: bool) -> Candidate:
    """Return a candidate with the figures of all its laps."""
    of_size: dict[tuple[Modality, int], list[Lap]] = {}
    for lap in laps:
        of_size.setdefault((lap.kind, lap.batch_size), []).append(lap)
    return Candidate(config=config, is_final=is_final, measured=tuple(map(measured, of_size.values())))


def measured(laps: Sequence[Lap]) -> Measured:
    """Sum up all laps of one kind at one batch size. Of throughput's laps, a batch's time is the mean within a lap."""
    batch_ms = [1000 * seconds * lap.batch_size / lap.items_per_request for lap in laps for seconds in lap.seconds]
    rates = [lap.items_per_request * len(lap.seconds) / sum(lap.seconds) for lap in laps]
    return Measured(
        kind=laps[0].kind,
        batch_size=laps[0].batch_size,
        p50_ms=float(np.percentile(batch_ms, 50)),
        p99_ms=float(np.percentile(batch_ms, 99)),
        items_per_s=float(np.median(rates)),
    )


def _speed(row: Measured, goal: Goal) -> float:
    """Return what a goal wants much of: answers a second of a caller alone by its median, or items a second."""
    return 1000 / row.p50_ms if goal == "latency" else row.items_per_s
