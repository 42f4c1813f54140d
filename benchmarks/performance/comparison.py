"""The page's tables: what was aimed at, items a second, times faster, latency, cosines, settings, cold start."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.against.cold_start import CACHED, FASTEMBED, OURS, ColdStart
from benchmarks.against.models import ARCHITECTURES, DEMO, REFERENCE, tower_name
from benchmarks.against.protocol import Kind, Setting
from benchmarks.against.results import Case, Mode, Results, items_per_s, latency_ms, times_faster
from benchmarks.against.single import Single
from benchmarks.harness.markdown import number, table
from benchmarks.harness.timing import Spread

_OPENVINO = "openvino"
_NONE = "—"


def glance(results: Results, starts: Sequence[ColdStart]) -> str:
    """Return the first table of the page: what was aimed at, and what came out, with each engine.

    Ratios are medians against fastembed's defaults, in brackets against it tuned.
    """
    fastembed, eager = ("fastembed", "fastembed-tuned"), ("eager",)
    asked: tuple[tuple[str, str, Kind, str, str, Mode, tuple[str, ...]], ...] = (
        ("images, mixed, float32, against fastembed", "2", "image", "mixed", "fp32", "batch", fastembed),
        ("images, mixed, int8", "6", "image", "mixed", "int8", "batch", fastembed),
        ("images, phone, int8", "8", "image", "phone", "int8", "batch", fastembed),
        ("texts, mixed, float32", "1.3", "text", "mixed", "fp32", "batch", fastembed),
        ("texts, mixed, int8", "3", "text", "mixed", "int8", "batch", fastembed),
        ("one query, int8", "2.2", "text", "queries", "int8", "single", fastembed),
        ("images, mixed, int8, against PyTorch eager", "6", "image", "mixed", "int8", "batch", eager),
        ("texts, mixed, int8, against PyTorch eager", "4", "text", "mixed", "int8", "batch", eager),
    )
    rows = []
    for what, aim, kind, set_name, precision, mode, peers in asked:
        case, ours = results.case(REFERENCE, kind, set_name, mode), f"mmalign-{precision}"
        rows.append([what, aim, *(_ratio(case, name, peers) for name in (ours, f"{ours}@{_OPENVINO}"))])
    return table(("", "aim", "onnxruntime", _OPENVINO), [*rows, *_cold_starts(starts)])


def _ratio(case: Case | None, ours: str, peers: tuple[str, ...]) -> str:
    if case is None or ours not in case.seconds:
        return _NONE
    first, *others = (number(times_faster(case, ours, peer).p50) for peer in peers)
    return " ".join([first, *(f"({other})" for other in others)])


def _cold_starts(starts: Sequence[ColdStart]) -> list[list[str]]:
    rows = []
    for case in (case for case in starts if case.model == DEMO):
        seconds = [f"{np.median(case.seconds[name]):.2f}" for name in (OURS, CACHED)]
        ratios = [number(case.ratio(name).p50) for name in (OURS, CACHED)]
        what = f"first {case.kind}, demo"
        rows.append([f"{what}, s (with the cache)", "0.6", f"{seconds[0]} ({seconds[1]})", _NONE])
        rows.append([f"{what}, against fastembed (with the cache)", "2", f"{ratios[0]} ({ratios[1]})", _NONE])
    return rows


def comparison(results: Results) -> str:
    parts = []
    for model in dict.fromkeys(case.model for case in results.cases):
        parts.append(f"### {ARCHITECTURES[model]}")
        for kind in ("image", "text"):
            if batches := cases_of(results, model, kind, "batch"):
                takers = _takers(results, batches)
                speeds = _by_set(results, batches, takers, lambda case, name: number(items_per_s(case, name).p50))
                parts.append(f"{kind.capitalize()}s a second, medians:\n\n{speeds}")
                parts += [_faster(results, batches, name) for name in results.ours if name in takers]
            if singles := cases_of(results, model, kind, "single"):
                latencies = _by_set(results, singles, _takers(results, singles), _latency)
                parts.append(f"One {kind} at a time, milliseconds, p50 (p90):\n\n{latencies}")
    parts += [_vectors(results), _settings(results), _sets(results), _skipped(results)]
    return "\n\n".join(part for part in parts if part)


def cold_start(starts: Sequence[ColdStart]) -> str:
    rows, names = [], (OURS, CACHED, FASTEMBED)
    for case in starts:
        medians = [f"{np.median(case.seconds[name]):.2f}" for name in names]
        ratios = [_times(case.ratio(name)) for name in (OURS, CACHED)]
        rows.append([ARCHITECTURES[case.model], case.kind, *medians, *ratios])
    head = ("model", "first", *(f"{name}, s" for name in names), "fastembed, times as long", "than with the cache")
    return table(head, rows)


def one_at_a_time(singles: Sequence[Single]) -> str:
    """Return the table of single items: a row for each way, quiet and busy beside each other."""
    keys = dict.fromkeys((case.model, case.kind, case.is_busy) for case in singles)
    cells = {(case.way, case.model, case.kind, case.is_busy): case for case in singles}
    names = [f"{tower_name(model, kind)}, {'busy' if is_busy else 'quiet'}" for model, kind, is_busy in keys]
    rows = []
    for way in dict.fromkeys(case.way for case in singles):
        found = [cells[way, *key] for key in keys]
        rows.append([way, *(f"{number(one.p50_ms)} ({one.times_directly:.2f})" for one in found)])
    return table(["", *names], rows)


def cases_of(results: Results, model: str, kind: str, mode: Mode) -> list[Case]:
    key = (model, kind, mode)
    return [case for case in results.cases if (case.model, case.kind, case.mode) == key and case.seconds]


def _takers(results: Results, cases: list[Case]) -> list[str]:
    return [name for name in results.labels if all(name in case.seconds for case in cases)]


def _by_set(results: Results, cases: list[Case], names: Sequence[str], cell: Callable[[Case, str], str]) -> str:
    """Return a table of a row for each entry and a column for each set."""
    head = ["", *(case.set_name for case in cases)]
    return table(head, [[results.labels[name], *(cell(case, name) for case in cases)] for name in names])


def _faster(results: Results, cases: list[Case], ours: str) -> str:
    peers = [name for name in _takers(results, cases) if name not in results.ours]
    note = "medians of ratios round by round, 10th to 90th percentile in brackets"
    rows = _by_set(results, cases, peers, lambda case, peer: _times(times_faster(case, ours, peer)))
    return f"Times as fast is **{results.labels[ours]}** as ({note}):\n\n{rows}"


def _latency(case: Case, name: str) -> str:
    found = latency_ms(case, name)
    return f"{number(found.p50)} ({number(found.p90)})"


def _vectors(results: Results) -> str:
    rows = []
    for name, label in results.labels.items():
        cells = []
        for model in ARCHITECTURES:
            for kind in ("image", "text"):
                of = [case for case in results.cases if (case.model, case.kind) == (model, kind)]
                found = [case.cosines[name] for case in of if name in case.cosines]
                lowest = (min(one.lowest for one in found), min(one.lowest_centred for one in found)) if found else ()
                cells.append(" / ".join(f"{value:.6f}" for value in lowest))
        rows.append([label, *cells])
    heads = [part for model in ARCHITECTURES for part in ARCHITECTURES[model].split(" and ")]
    return (
        "### Vectors\n\nThe lowest cosine, over all sets, with eager PyTorch after this project's decoding, "
        "preprocessing and tokenizing; then the lowest with the mean vector taken away, since towers with random "
        "weights (ResNet-50, BERT-base) give nearly one vector for everything. int8 was calibrated on the demo's "
        "drawings: EfficientNet-Lite0 clips these photographs, which is why ranges are to be taken from what will be "
        f"served ([quantization.md](quantization.md)).\n\n{table(['', *heads], rows)}"
    )


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
