"""Settings first, then rounds: in each, every entry makes one timed call on every set, in an order drawn anew.

Calls of one round on one set are neighbours in time, which is why speed is compared pair by pair (see results.py).
"""

import random
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from benchmarks.against.entries import Entry
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Kind, Measure, Setting
from benchmarks.against.results import Case, Trial

# Items of a trial, and of the call before it, which plans memory: a whole batch of most settings.
_NUM_TRIED, _TRIAL_LEAD_IN = 16, 8
# How many items of a set are timed one by one each round.
NUM_SINGLES = 4
SINGLE = Setting(batch_size=1)

# By entry, then by kind and set.
Chosen = dict[str, dict[Kind, dict[str, Setting]]]


class Work(msgspec.Struct, frozen=True):
    """A case to measure and its items: paths of images, or texts."""

    case: Case
    items: tuple[str, ...]


def choose_settings(processes: Mapping[str, PeerProcess], work: Sequence[Work]) -> tuple[Chosen, list[Trial]]:
    """Try every entry's settings on every set and return the fastest for each, with all that was tried."""
    chosen: Chosen = {name: {} for name in processes}
    trials: list[Trial] = []
    for one in work:
        kind, set_name = one.case.kind, one.case.set_name
        for name in takers(processes, kind) if one.case.mode == "batch" else ():
            settings = processes[name].entry.settings[kind]
            best = settings[0]
            if len(settings) > 1:
                items = one.items[:_NUM_TRIED]
                tried = [Trial(name, kind, set_name, s, _speed(processes[name], kind, items, s)) for s in settings]
                best = max(tried, key=lambda trial: trial.items_per_s).setting
                trials += tried
            chosen[name].setdefault(kind, {})[set_name] = best
    return chosen, trials


def warm_up(processes: Mapping[str, PeerProcess], work: Iterable[Work], chosen: Chosen) -> None:
    """Let those that compile for each new shape do so, untimed."""
    for one in work:
        for name in takers(processes, one.case.kind):
            if processes[name].entry.compiles:
                processes[name].measure(_request(one, chosen[name]))


def take_round(processes: Mapping[str, PeerProcess], work: Sequence[Work], chosen: Chosen, rng: random.Random) -> None:
    for one in work:
        names = takers(processes, one.case.kind)
        for name in rng.sample(names, len(names)):
            found = processes[name].measure(_request(one, chosen[name]))
            one.case.seconds.setdefault(name, []).extend(found.seconds)


def takers(processes: Mapping[str, PeerProcess], kind: Kind) -> list[str]:
    """Return who takes this kind of item."""
    return [name for name, process in processes.items() if kind in process.entry.settings]


def entries_of(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Return the entries named, all for none. Raises ValueError for a name that nobody has."""
    known = {entry.name for entry in entries}
    unknown = set(names) - known
    if unknown:
        raise ValueError(f"seen {', '.join(sorted(unknown))}, expected some of {', '.join(sorted(known))}")
    return [entry for entry in entries if not names or entry.name in names]


def _request(one: Work, settings: Mapping[Kind, Mapping[str, Setting]]) -> Measure:
    kind = one.case.kind
    if one.case.mode == "single":
        return Measure(kind, one.items, SINGLE, one_by_one=True)
    return Measure(kind, one.items, settings[kind][one.case.set_name])


def _speed(process: PeerProcess, kind: Kind, items: tuple[str, ...], setting: Setting) -> float:
    lead_in = len(items) if process.entry.compiles else _TRIAL_LEAD_IN
    found = process.measure(Measure(kind, items, setting, lead_in))
    return round(1 / found.seconds[0], 3)
