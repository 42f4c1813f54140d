"""Who is tried how often: many candidates once or twice, the few that could win again and again, in turn.

First every engine with every precision, on all threads. Then those not far behind the best, with fewer threads and
other ways to wait. Then a final among the fastest that passed `verify`, at every batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmalign_runtime.bench.compare.candidates import Candidate, settings
from mmalign_runtime.bench.compare.laps import Lap, measured
from mmalign_runtime.bench.compare.report import Contestant, Refused, fastest_first
from mmalign_runtime.errors import MmalignError
from mmalign_runtime.profile import Goal

# A try, of a candidate at some batch sizes. Raises MmalignError when it cannot be loaded or run.
Try = Callable[[Candidate, Sequence[int]], Sequence[Lap]]
# Raises MmalignError when an engine and precision do not give the bundle's vectors.
Verify = Callable[[Candidate], object]
Tell = Callable[[str], object]

HEAT_BATCH_SIZE = 8
_NUM_BASIC_TRIES, _NUM_FINAL_TRIES = 2, 3
# Far more than tries of one candidate differ by on a quiet machine, and, the first, than threads and spinning gain.
_STILL_IN, _IN_FINAL = 1.5, 1.15
_MAX_FINALISTS = 4


class Heats:
    """The tries of one comparison: the laps that count of each candidate, and those who were refused."""

    def __init__(self, goal: Goal, try_once: Try, verify: Verify, tell: Tell) -> None:
        self.refused: list[Refused] = []
        self._goal = goal
        self._try_once = try_once
        self._verify = verify
        self._tell = tell
        self._laps: dict[Candidate, list[Lap]] = {}
        self._num_tries: dict[Candidate, int] = {}
        self._verdicts: dict[tuple[str, str], str] = {}

    def run(
        self, basics: Sequence[Candidate], default: Candidate, batch_sizes: Sequence[int], num_threads: int | None
    ) -> list[Contestant]:
        """Return everyone who ran, fastest first; the finalists have been tried most often.

        `default` is always a finalist unless it is refused. `num_threads` keeps all to that many, None tries fewer.
        """
        for _ in range(_NUM_BASIC_TRIES):
            self._heat(basics, (HEAT_BATCH_SIZE,))
        near = self._near(_STILL_IN)
        self._heat([other for each in near for other in settings(each, num_threads=num_threads)], (HEAT_BATCH_SIZE,))
        finalists = self._finalists(default)
        for candidate in finalists:  # from here on all have been tried at the same moments
            self._laps[candidate], self._num_tries[candidate] = [], 0
        for round_ in range(_NUM_FINAL_TRIES):
            turn = round_ % max(1, len(finalists))  # so that nobody always runs behind the same one
            self._heat(finalists[turn:] + finalists[:turn], batch_sizes)
        return fastest_first([self._contestant(candidate) for candidate in self._laps], self._goal)

    def _heat(self, candidates: Sequence[Candidate], batch_sizes: Sequence[int]) -> None:
        refused = {found.candidate for found in self.refused}
        for candidate in candidates:
            if candidate in refused:
                continue
            self._tell(f"trying {candidate}")
            try:
                laps = self._try_once(candidate, batch_sizes)
            except MmalignError as error:
                self._refuse(candidate, str(error))
            else:
                self._laps.setdefault(candidate, []).extend(laps)
                self._num_tries[candidate] = self._num_tries.get(candidate, 0) + 1

    def _near(self, factor: float) -> list[Candidate]:
        ranked = fastest_first([self._contestant(candidate) for candidate in self._laps], self._goal)
        least = ranked[0].score(self._goal) / factor if ranked else 0.0
        return [found.candidate for found in ranked if found.score(self._goal) >= least]

    def _finalists(self, default: Candidate) -> list[Candidate]:
        found: list[Candidate] = []
        while len(found) < _MAX_FINALISTS:
            left = [candidate for candidate in self._near(_IN_FINAL) if candidate not in found]
            if not left:
                break
            if self._passes(left[0]):
                found.append(left[0])
        if default in self._laps and default not in found and self._passes(default):
            found.append(default)
        return found

    def _passes(self, candidate: Candidate) -> bool:
        reason = self._verdict(candidate)
        if reason:
            self._refuse(candidate, reason)
        return not reason

    def _verdict(self, candidate: Candidate) -> str:
        """Return why an engine's precision does not give the bundle's vectors, or nothing; each is verified once."""
        key = (candidate.engine, candidate.precision)
        if key not in self._verdicts:
            self._tell(f"verifying {candidate.engine} {candidate.precision}")
            try:
                self._verify(candidate)
                self._verdicts[key] = ""
            except MmalignError as error:
                self._verdicts[key] = str(error)
        return self._verdicts[key]

    def _refuse(self, candidate: Candidate, reason: str) -> None:
        self._laps.pop(candidate, None)
        self.refused.append(Refused(candidate, reason))

    def _contestant(self, candidate: Candidate) -> Contestant:
        of_size: dict[tuple[str, int], list[Lap]] = {}
        for lap in self._laps[candidate]:
            of_size.setdefault((lap.kind, lap.batch_size), []).append(lap)
        return Contestant(
            candidate=candidate,
            num_tries=self._num_tries[candidate],
            is_verified=self._verdicts.get((candidate.engine, candidate.precision)) == "",
            measured=tuple(measured(laps) for laps in of_size.values()),
        )
