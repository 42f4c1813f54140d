"""Compares embedding images and texts end to end with what people use today, interleaved in one run.

python -m benchmarks.against.run --out benchmarks/against/results/xeon.json
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from typer import Option

from benchmarks.against.entries import DEFAULT_OURS, Entry, ours, peers, python_of
from benchmarks.against.images import NUM_IMAGES, build_image_sets
from benchmarks.against.models import DEMO, REFERENCE, ModelSource, demo_source, prepare_files, reference_source
from benchmarks.against.oracle import Oracle
from benchmarks.against.processes import PeerError, PeerProcess
from benchmarks.against.protocol import Kind, Measure
from benchmarks.against.results import Case, ItemSet, Mode, Results, cosine
from benchmarks.against.texts import build_text_sets
from benchmarks.against.turns import NUM_SINGLES, Chosen, Work, choose_settings, entries_of, take_round, takers, warm_up
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import CACHE, FASTEMBED_PYTHON, ROOT
from benchmarks.harness.results import write_result
from mmalign_runtime.engine.threads import available_threads

DEFAULT_MINUTES = 13.0
# Of the time for rounds; settings, warm-ups and loading take some minutes more. The targets are about the reference.
_SHARE = {REFERENCE: 0.8, DEMO: 0.2}
# The demo's towers are small and show the same things: it gets the mixed set, and single items.
_SETS: dict[str, dict[Kind, tuple[str, ...]]] = {
    REFERENCE: {
        "image": ("mixed", "phone", "web", "thumbnails"),
        "text": ("mixed", "queries", "captions", "paragraphs"),
    },
    DEMO: {"image": ("mixed",), "text": ("mixed",)},
}
_SINGLES: dict[Kind, tuple[str, ...]] = {"image": ("web", "phone"), "text": ("queries", "paragraphs")}
_MIN_ROUNDS = 3
# Items of each set whose vectors are held to PyTorch's.
_NUM_COMPARED = 12

Items = dict[Kind, dict[str, tuple[str, ...]]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare, with what, and for how long."""

    out: Path
    cache: Path
    reference: Path | None
    demo: Path
    fastembed_python: Path
    models: tuple[str, ...]
    sets: tuple[str, ...] | None
    entries: tuple[str, ...] | None
    ours: tuple[str, ...]
    num_items: int
    minutes: float


def measure(options: Options) -> Results:
    """Measure everything asked for; results are written after every round."""
    num_threads = available_threads()
    items = load_items(options.cache, options.num_items)
    entries = entries_of([*ours(options.ours), *peers(num_threads)], options.entries)
    watch = Watch(num_threads)
    results = Results(
        environment=watch.card(),
        labels={entry.name: entry.label for entry in entries},
        ours=tuple(entry.name for entry in entries if entry.is_ours),
        versions={},
        sets=[describe(kind, name, found) for kind, sets in items.items() for name, found in sets.items()],
        settings={},
        trials={},
        skipped={},
        cases=[],
    )
    for name in options.models:
        reference = name == REFERENCE
        source = reference_source(options.reference, options.cache) if reference else demo_source(options.demo)
        share = _SHARE[name] / sum(_SHARE[other] for other in options.models)
        _run_model(options, source, entries, items, results, watch, share * options.minutes * 60)
    return results


def load_items(cache: Path, num_items: int) -> Items:
    """Return the first items of every set: paths of images, and texts."""
    images = {name: tuple(str(path) for path in paths) for name, paths in build_image_sets(cache).items()}
    sets: Items = {"image": images, "text": build_text_sets(cache)}
    return {kind: {name: found[:num_items] for name, found in named.items()} for kind, named in sets.items()}


def describe(kind: Kind, name: str, items: Sequence[str]) -> ItemSet:
    """Return what a set holds."""
    contents = [Path(item).read_bytes() if kind == "image" else item.encode() for item in items]
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents))
    mean_bytes = round(float(np.mean([len(content) for content in contents])), 1)
    return ItemSet(kind, name, len(items), mean_bytes, digest.hexdigest())


def _run_model(
    options: Options,
    source: ModelSource,
    entries: Sequence[Entry],
    items: Items,
    results: Results,
    watch: Watch,
    seconds: float,
) -> None:
    work = _work(source.name, items, options.sets)
    results.cases += [one.case for one in work]
    with _started(options, source, entries, results) as processes:
        chosen, trials = choose_settings(processes, work)
        results.settings[source.name], results.trials[source.name] = chosen, trials
        for trial in trials:
            print(f"  {trial.entry} {trial.kind} {trial.set_name} {trial.setting}: {trial.items_per_s:.1f} items/s")
        warm_up(processes, work, chosen)
        _compare_vectors(source, processes, work, chosen)
        watch.restart(_cpu_s(processes))
        start = time.monotonic()
        rng = random.Random(0)
        for number in _rounds(seconds):
            take_round(processes, work, chosen, rng)
            results.environment = watch.card(_cpu_s(processes))
            write_result(results, options.out)
            print(f"{source.name}: round {number}, {time.monotonic() - start:.0f} s", flush=True)


@contextmanager
def _started(
    options: Options, source: ModelSource, entries: Sequence[Entry], results: Results
) -> Iterator[dict[str, PeerProcess]]:
    files = prepare_files(source, options.cache)
    log = options.cache / "workers.log"
    skipped = results.skipped.setdefault(source.name, {})
    processes: dict[str, PeerProcess] = {}
    with ExitStack() as stack:
        for entry in entries:
            python = python_of(entry, options.fastembed_python)
            try:
                process = stack.enter_context(PeerProcess(entry, python, files, available_threads(), log))
            except PeerError as error:
                skipped[entry.name] = str(error)
                print(f"{source.name}: WITHOUT {entry.name}: {error}", flush=True)
                continue
            processes[entry.name] = process
            results.versions[entry.name] = process.versions
        yield processes


def _work(model: str, items: Items, sets: Sequence[str] | None) -> list[Work]:
    found = []
    for kind, names in _SETS[model].items():
        modes: list[tuple[Mode, str]] = [("batch", name) for name in names]
        modes += [("single", name) for name in _SINGLES[kind]]
        for mode, name in modes:
            if sets is None or name in sets:
                chosen = items[kind][name] if mode == "batch" else items[kind][name][:NUM_SINGLES]
                found.append(Work(Case(model, kind, name, mode, len(chosen), {}, {}), chosen))
    return found


def _compare_vectors(
    source: ModelSource, processes: Mapping[str, PeerProcess], work: Sequence[Work], chosen: Chosen
) -> None:
    oracle = Oracle(source.run)
    for one in work:
        if one.case.mode == "single":
            continue
        compared = one.items[:_NUM_COMPARED]
        expected = oracle.vectors(one.case.kind, compared)
        for name in takers(processes, one.case.kind):
            # With the setting that is timed: batch-mates and padding may have their say, and would show.
            request = Measure(one.case.kind, compared, chosen[name][one.case.kind][one.case.set_name])
            one.case.cosines[name] = cosine(processes[name].vectors(request), expected)
            print(f"  {one.case.kind} {one.case.set_name} {name}: {one.case.cosines[name]}", flush=True)


def _rounds(seconds: float) -> Iterator[int]:
    """Number rounds until the next would end after `seconds`, and at least _MIN_ROUNDS."""
    start, number = time.monotonic(), 0
    while True:
        number += 1
        yield number
        taken = time.monotonic() - start
        if number >= _MIN_ROUNDS and taken + taken / number > seconds:
            return


def _cpu_s(processes: Mapping[str, PeerProcess]) -> float:
    return sum(process.cpu_s() for process in processes.values())


def _names(text: str) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(text.split(","))) if text else None


def main(
    out: Annotated[Path, Option(help="the JSON file that gets the results")],
    cache: Annotated[Path, Option(help="folder for packages, sets and exports")] = CACHE,
    reference: Annotated[Path | None, Option(help="a bundle of the reference architecture; else exported")] = None,
    demo: Annotated[Path, Option(help="what `make demo` left")] = ROOT / "demo",
    fastembed_python: Annotated[Path, Option(help="fastembed's interpreter")] = FASTEMBED_PYTHON,
    models: Annotated[str, Option(help="those to compare with, joined by commas")] = f"{REFERENCE},{DEMO}",
    sets: Annotated[str, Option(help="such as mixed,phone,queries; default all")] = "",
    peers: Annotated[str, Option(help="entries to take part, ours too; default all")] = "",
    ours: Annotated[str, Option(help="PRECISION[@ENGINE],...")] = ",".join(DEFAULT_OURS),
    items: Annotated[int, Option(help="items of a set in a call, at most 32")] = NUM_IMAGES,
    minutes: Annotated[float, Option(help="time for rounds, at least three")] = DEFAULT_MINUTES,
) -> None:
    """Measure everything asked for."""
    options = Options(
        **{"out": out, "cache": cache, "reference": reference, "demo": demo, "fastembed_python": fastembed_python},
        **{"models": _names(models), "sets": _names(sets), "entries": _names(peers), "ours": _names(ours)},
        **{"num_items": items, "minutes": minutes},
    )
    measure(options)


if __name__ == "__main__":
    run(main)
