"""What a comparison found: every candidate with its figures, those refused with the reason, and the one to take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mmalign_runtime.bench.compare.candidates import Candidate
from mmalign_runtime.bench.environment import Environment
from mmalign_runtime.bench.quiet import Quietness
from mmalign_runtime.bench.workload import Skipped
from mmalign_runtime.profile import Goal, Measured, Profile


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: how often it was tried, and its figures, of every batch size it was tried with.

    `is_verified` says whether its engine and precision passed `verify` here; only such are recommended.
    """

    candidate: Candidate
    num_tries: int
    is_verified: bool
    measured: tuple[Measured, ...]

    def best(self, goal: Goal) -> tuple[Measured, ...]:
        """Return the figures of the batch size that suits the goal, one of each kind of items."""
        kinds = dict.fromkeys(row.kind for row in self.measured)
        return tuple(
            max((row for row in self.measured if row.kind == kind), key=lambda row: speed(row, goal)) for kind in kinds
        )

    def score(self, goal: Goal) -> float:
        """Return the geometric mean of its speeds over the kinds of items; more is better."""
        return float(np.exp(np.mean([np.log(speed(row, goal)) for row in self.best(goal)])))


class Refused(msgspec.Struct, frozen=True):
    """A candidate that did not load, or whose vectors are not the bundle's, and why."""

    candidate: Candidate
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates, fastest first. `recommended` is among them, and None when nothing can be recommended.

    `environment` is that of the default candidate. `profile` is what `Embedder.load` takes, None on a noisy machine
    unless it was asked for all the same.
    """

    environment: Environment
    goal: Goal
    contestants: tuple[Contestant, ...]
    refused: tuple[Refused, ...]
    recommended: Candidate | None
    default: Candidate
    profile: Profile | None
    quietness: Quietness
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def of(self, candidate: Candidate) -> Contestant:
        """Return what was measured of a candidate that was not refused."""
        return next(found for found in self.contestants if found.candidate == candidate)


def speed(row: Measured, goal: Goal) -> float:
    """Return what a goal wants much of: answers a second of a caller alone by its median, or items a second."""
    return 1000 / row.p50_ms if goal == "latency" else row.items_per_s


def fastest_first(contestants: Sequence[Contestant], goal: Goal) -> list[Contestant]:
    """Return the contestants by their score."""
    return sorted(contestants, key=lambda found: -found.score(goal))
