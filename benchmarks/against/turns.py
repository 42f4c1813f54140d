"""Settings first, then rounds: in each, every entry makes one timed call on every set, in an order drawn anew.

Calls of one round on one set are neighbours in time, which is why speed is compared pair by pair (see results.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from benchmarks.against.entries import Entry
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Kind, Measure, Setting
from benchmarks.against.results import Case, Trial

# Items of the call before a trial, which compiles and plans memory: a whole batch of most settings.
_TRIAL_LEAD_IN = 8
# How many items of a set are timed one by one each round.
NUM_SINGLES = 4
SINGLE = Setting(batch_size=1)

Chosen = dict[str, dict[Kind, Setting]]


class Work(msgspec.Struct, frozen=True):
    """A case to measure and its items: paths of images, or texts."""

    case: Case
    items: tuple[str, ...]


def choose_settings(
    processes: Mapping[str, PeerProcess], mixed: Mapping[Kind, tuple[str, ...]]
) -> tuple[Chosen, list[Trial]]:
    """Try every entry's settings on the mixed sets and return the fastest of each, with all that was tried."""
    chosen: Chosen = {name: {} for name in processes}
    trials: list[Trial] = []
    for name, process in processes.items():
        for kind, items in mixed.items():
            settings = process.entry.settings.get(kind, ())
            if len(settings) == 1:
                chosen[name][kind] = settings[0]
            if len(settings) < 2:
                continue
            tried = [Trial(name, kind, setting, _speed(process, kind, items, setting)) for setting in settings]
            chosen[name][kind] = max(tried, key=lambda trial: trial.items_per_s).setting
            trials += tried
    return chosen, trials


def warm_up(processes: Mapping[str, PeerProcess], work: Iterable[Work], chosen: Chosen) -> None:
    """Let those that compile for each new shape do so, untimed."""
    for one in work:
        for name in takers(processes, one.case.kind):
            if processes[name].entry.compiles:
                processes[name].measure(_request(one, chosen[name]))


def take_round(processes: Mapping[str, PeerProcess], work: Sequence[Work], chosen: Chosen, rng: random.Random) -> None:
    """Add one round to every case."""
    for one in work:
        names = takers(processes, one.case.kind)
        for name in rng.sample(names, len(names)):
            found = processes[name].measure(_request(one, chosen[name]))
            one.case.seconds.setdefault(name, []).extend(found.seconds)


def takers(processes: Mapping[str, PeerProcess], kind: Kind) -> list[str]:
    """Return who takes this kind of item."""
    return [name for name, process in processes.items() if kind in process.entry.settings]


def entries_of(entries: Sequence[Entry], names: Sequence[str] | None) -> list[Entry]:
    """Return the entries named, all for None. Raises ValueError for a name that nobody has."""
    known = {entry.name for entry in entries}
    unknown = set(names or ()) - known
    if unknown:
        raise ValueError(f"seen {', '.join(sorted(unknown))}, expected some of {', '.join(sorted(known))}")
    return [entry for entry in entries if names is None or entry.name in names]


def _request(one: Work, settings: Mapping[Kind, Setting]) -> Measure:
    kind = one.case.kind
    if one.case.mode == "single":
        return Measure(kind, one.items, SINGLE, one_by_one=True)
    return Measure(kind, one.items, settings[kind])


def _speed(process: PeerProcess, kind: Kind, items: tuple[str, ...], setting: Setting) -> float:
    lead_in = len(items) if process.entry.compiles else _TRIAL_LEAD_IN
    found = process.measure(Measure(kind, items, setting, lead_in))
    return round(1 / found.seconds[0], 3)
