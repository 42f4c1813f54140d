"""The part of the page that compares: items a second, how many times faster, latency, cosines, settings, cold start."""

from __future__ import annotations

import numpy as np

from benchmarks.against.cold_start import CACHED, FASTEMBED, OURS, ColdStarts
from benchmarks.against.models import ARCHITECTURES, tower_name
from benchmarks.against.protocol import Setting
from benchmarks.against.results import Case, Mode, Results, items_per_s, latency_ms, times_faster
from benchmarks.against.single import Singles
from benchmarks.harness.markdown import number, table
from benchmarks.harness.statistics import Spread

_NOUNS = {"image": "images", "text": "texts"}


def comparison(results: Results) -> str:
    """Return all tables of a comparison."""
    parts = []
    for model in dict.fromkeys(case.model for case in results.cases):
        parts.append(f"### {ARCHITECTURES[model]}")
        for kind in ("image", "text"):
            batches = _cases(results, model, kind, "batch")
            if batches:
                parts.append(f"{_NOUNS[kind].capitalize()} a second, medians:\n\n{_speeds(results, batches)}")
                parts += [_faster(results, batches, name) for name in _ours(results, batches)]
            singles = _cases(results, model, kind, "single")
            if singles:
                parts.append(f"One {kind} at a time, milliseconds, p50 (p90):\n\n{_latencies(results, singles)}")
    parts += [_vectors(results), _settings(results), _sets(results), _skipped(results)]
    return "\n\n".join(part for part in parts if part)


def cold_start(starts: ColdStarts) -> str:
    """Return the table of cold starts."""
    rows = []
    for case in starts.cases:
        medians = [f"{np.median(case.seconds[name]):.2f}" for name in (OURS, CACHED, FASTEMBED)]
        ratios = [_times(case.ratio(name)) for name in (OURS, CACHED)]
        rows.append([ARCHITECTURES[case.model], case.kind, *medians, *ratios])
    names = (OURS, CACHED, FASTEMBED)
    head = ("model", "first", *(f"{name}, s" for name in names), "fastembed, times as long", "than with the cache")
    return table(head, rows)


def one_at_a_time(singles: Singles) -> str:
    """Return the table of single items: a row for each way, quiet and busy beside each other."""
    keys = dict.fromkeys((case.model, case.kind, case.is_busy) for case in singles.cases)
    cells = {(case.way, case.model, case.kind, case.is_busy): case for case in singles.cases}
    names = [f"{tower_name(model, kind)}, {'busy' if is_busy else 'quiet'}" for model, kind, is_busy in keys]
    rows = []
    for way in dict.fromkeys(case.way for case in singles.cases):
        found = [cells[way, *key] for key in keys]
        rows.append([way, *(f"{number(one.p50_ms)} ({one.times_directly:.2f})" for one in found)])
    return table(["", *names], rows)


def _cases(results: Results, model: str, kind: str, mode: Mode) -> list[Case]:
    found = [case for case in results.cases if (case.model, case.kind, case.mode) == (model, kind, mode)]
    return [case for case in found if case.seconds]


def _ours(results: Results, cases: list[Case]) -> list[str]:
    return [name for name in results.ours if all(name in case.seconds for case in cases)]


def _takers(results: Results, cases: list[Case]) -> list[str]:
    return [name for name in results.labels if all(name in case.seconds for case in cases)]


def _speeds(results: Results, cases: list[Case]) -> str:
    head = ["", *(case.set_name for case in cases)]
    rows = [
        [results.labels[name], *(number(items_per_s(case, name).p50) for case in cases)]
        for name in _takers(results, cases)
    ]
    return table(head, rows)


def _faster(results: Results, cases: list[Case], ours: str) -> str:
    head = ["", *(case.set_name for case in cases)]
    peers = [name for name in _takers(results, cases) if name not in results.ours]
    rows = [[results.labels[peer], *(_times(times_faster(case, ours, peer)) for case in cases)] for peer in peers]
    note = "medians of ratios round by round, 10th to 90th percentile in brackets"
    return f"Times as fast is **{results.labels[ours]}** as ({note}):\n\n{table(head, rows)}"


def _latencies(results: Results, cases: list[Case]) -> str:
    head = ["", *(case.set_name for case in cases)]
    rows = []
    for name in _takers(results, cases):
        found = [latency_ms(case, name) for case in cases]
        rows.append([results.labels[name], *(f"{number(one.p50)} ({number(one.p90)})" for one in found)])
    return table(head, rows)


def _vectors(results: Results) -> str:
    rows = []
    for name, label in results.labels.items():
        cells = []
        for model in ARCHITECTURES:
            for kind in ("image", "text"):
                found = [case.cosines[name] for case in results.cases if _has(case, model, kind, name)]
                lowest = (min(one.lowest for one in found), min(one.lowest_centred for one in found)) if found else ()
                cells.append(" / ".join(f"{value:.6f}" for value in lowest))
        rows.append([label, *cells])
    heads = [f"{part}" for model in ARCHITECTURES for part in ARCHITECTURES[model].split(" and ")]
    return (
        "### Vectors\n\nThe lowest cosine, over all sets, with eager PyTorch after this project's decoding, "
        "preprocessing and tokenizing; then the lowest with the mean vector taken away, since towers with random "
        "weights (ResNet-50, BERT-base) give nearly one vector for everything. int8 was calibrated on the demo's "
        "drawings: EfficientNet-Lite0 clips these photographs, which is why ranges are to be taken from what will be "
        f"served ([quantization.md](quantization.md)).\n\n{table(['', *heads], rows)}"
    )


def _has(case: Case, model: str, kind: str, name: str) -> bool:
    return (case.model, case.kind) == (model, kind) and name in case.cosines


def _settings(results: Results) -> str:
    rows = []
    for model, trials in results.trials.items():
        keys = dict.fromkeys((trial.entry, trial.kind, trial.set_name) for trial in trials)
        for entry, kind, set_name in sorted(keys):
            found = [trial for trial in trials if (trial.entry, trial.kind, trial.set_name) == (entry, kind, set_name)]
            by_speed = sorted(found, key=lambda trial: -trial.items_per_s)
            words = [f"{_words(one.setting)}: {number(one.items_per_s)}" for one in by_speed]
            rows.append([model, results.labels[entry], f"{kind}s, {set_name}", words[0], "; ".join(words[1:])])
    head = ("model", "", "of", "taken, items/s", "also tried, items/s")
    return f"### Settings\n\nTried once each on a part of every set; the fastest was taken.\n\n{table(head, rows)}"


def _words(setting: Setting) -> str:
    words = [f"batch {setting.batch_size}" if setting.batch_size else "default batch"]
    words += [f"{setting.processes} processes"] if setting.processes else []
    words += ["channels last"] if setting.channels_last else []
    return ", ".join(words)


def _sets(results: Results) -> str:
    rows = [
        [one.kind, one.name, str(one.num_items), number(one.mean_bytes), f"`{one.sha256[:16]}`"] for one in results.sets
    ]
    head = ("kind", "set", "items", "bytes an item", "sha256 of all")
    return f"### Sets\n\n{table(head, rows)}"


def _skipped(results: Results) -> str:
    lines = [
        f"- {ARCHITECTURES[model]}, {results.labels[name]}: {reason}"
        for model, skipped in results.skipped.items()
        for name, reason in skipped.items()
    ]
    return "Left out:\n\n" + "\n".join(lines) if lines else ""


def _times(found: Spread) -> str:
    return f"{number(found.p50)} ({number(found.p10)}–{number(found.p90)})"
