"""Compares embedding images and texts end to end with what people use today, interleaved in one run.

python -m benchmarks.against.run --out benchmarks/against/results/xeon.json
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
from typer import Option

from benchmarks.against.entries import Entry, ours, peers, python_of
from benchmarks.against.images import NUM_IMAGES, build_image_sets
from benchmarks.against.models import DEMO, REFERENCE, ModelSource, demo_source, prepare_files, reference_source
from benchmarks.against.oracle import Oracle
from benchmarks.against.processes import PeerError, PeerProcess
from benchmarks.against.protocol import Kind, Measure, ModelFiles
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
Processes = dict[str, PeerProcess]


def load_items(cache: Path, num_items: int) -> Items:
    """Return the first items of every set: paths of images, and texts."""
    images = {name: tuple(str(path) for path in paths) for name, paths in build_image_sets(cache).items()}
    sets: Items = {"image": images, "text": build_text_sets(cache)}
    return {kind: {name: found[:num_items] for name, found in named.items()} for kind, named in sets.items()}


def describe(kind: Kind, name: str, items: Sequence[str]) -> ItemSet:
    contents = [Path(item).read_bytes() if kind == "image" else item.encode() for item in items]
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents))
    mean_bytes = round(float(np.mean([len(content) for content in contents])), 1)
    return ItemSet(kind, name, len(items), mean_bytes, digest.hexdigest())


def _started(
    entries: Sequence[Entry], start: Callable[[Entry], PeerProcess], results: Results, model: str, stack: ExitStack
) -> Processes:
    processes = {}
    for entry in entries:
        try:
            process = start(entry)
        except PeerError as error:
            results.skipped.setdefault(model, {})[entry.name] = str(error)
            print(f"{model}: WITHOUT {entry.name}: {error}", flush=True)
            continue
        processes[entry.name] = stack.enter_context(process)
        results.versions[entry.name] = process.versions
    return processes


def _take_rounds(
    source: ModelSource, processes: Processes, work: Sequence[Work], results: Results, watch: Watch, seconds: float
) -> Iterator[int]:
    """Choose settings, compare vectors, and yield the number of every round that was taken."""
    chosen, trials = choose_settings(processes, work)
    results.settings[source.name], results.trials[source.name] = chosen, trials
    for trial in trials:
        print(f"  {trial.entry} {trial.kind} {trial.set_name} {trial.setting}: {trial.items_per_s:.1f} items/s")
    warm_up(processes, work, chosen)
    _compare_vectors(source, processes, work, chosen)
    watch.restart(_cpu_s(processes))
    rng = random.Random(0)
    for number in _rounds(seconds):
        take_round(processes, work, chosen, rng)
        results.environment = watch.card(_cpu_s(processes))
        yield number


def _work(model: str, items: Items, sets: Sequence[str]) -> list[Work]:
    found = []
    for kind, names in _SETS[model].items():
        modes: list[tuple[Mode, str]] = [("batch", name) for name in names]
        modes += [("single", name) for name in _SINGLES[kind]]
        for mode, name in modes:
            if not sets or name in sets:
                chosen = items[kind][name] if mode == "batch" else items[kind][name][:NUM_SINGLES]
                found.append(Work(Case(model, kind, name, mode, len(chosen), {}, {}), chosen))
    return found


def _compare_vectors(source: ModelSource, processes: Processes, work: Sequence[Work], chosen: Chosen) -> None:
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


def _cpu_s(processes: Processes) -> float:
    return sum(process.cpu_s() for process in processes.values())


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(","))) if text else ()


def main(
    out: Annotated[Path, Option(help="the JSON file that gets the results")],
    cache: Annotated[Path, Option(help="folder for packages, sets and exports")] = CACHE,
    reference: Annotated[Path | None, Option(help="a bundle of the reference architecture; else exported")] = None,
    demo: Annotated[Path, Option(help="what `make demo` left")] = ROOT / "demo",
    fastembed_python: Annotated[Path, Option(help="fastembed's interpreter")] = FASTEMBED_PYTHON,
    models: Annotated[str, Option(help="those to compare with, joined by commas")] = f"{REFERENCE},{DEMO}",
    sets: Annotated[str, Option(help="such as mixed,phone,queries; default all")] = "",
    named: Annotated[str, Option("--peers", help="entries to take part, ours too; default all")] = "",
    variants: Annotated[str, Option("--ours", help="PRECISION[@ENGINE],...")] = "fp32,int8",
    num_items: Annotated[int, Option("--items", help="items of a set in a call, at most 32")] = NUM_IMAGES,
    minutes: Annotated[float, Option(help="time for rounds, at least three")] = DEFAULT_MINUTES,
) -> None:
    """Measure everything asked for; results are written after every round."""
    num_threads = available_threads()
    items, wanted = load_items(cache, num_items), _names(models)
    entries = entries_of([*ours(_names(variants)), *peers(num_threads)], _names(named))
    watch = Watch(num_threads)
    results = Results(
        environment=watch.card(),
        labels={entry.name: entry.label for entry in entries},
        ours=tuple(entry.name for entry in entries if entry.is_ours),
        sets=[describe(kind, name, found) for kind, sets in items.items() for name, found in sets.items()],
    )
    for model in wanted:
        source = reference_source(reference, cache) if model == REFERENCE else demo_source(demo)
        files = prepare_files(source, cache)
        seconds = minutes * 60 * _SHARE[model] / sum(_SHARE[name] for name in wanted)

        def start(entry: Entry, files: ModelFiles = files) -> PeerProcess:
            return PeerProcess(entry, python_of(entry, fastembed_python), files, num_threads, cache / "workers.log")

        work, begun = _work(model, items, _names(sets)), time.monotonic()
        results.cases += [one.case for one in work]
        with ExitStack() as stack:
            processes = _started(entries, start, results, model, stack)
            for number in _take_rounds(source, processes, work, results, watch, seconds):
                write_result(results, out)
                print(f"{model}: round {number}, {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    run(main)
