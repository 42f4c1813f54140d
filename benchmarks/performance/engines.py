"""Tables of single engines: the reference architecture engine by engine, and the stages of the demo's golden items."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.markdown import table
from benchmarks.harness.results import read_result
from benchmarks.reference.report import EngineTiming, ReferenceReport
from mmalign_runtime.bench import BenchReport

_RESULTS = Path(__file__).resolve().parents[1] / "reference/results"
_ENGINES = {"eager": "PyTorch eager", "compile": "torch.compile", "aoti": "AOTInductor", "onnx": "ONNX Runtime"}
_TOWERS = {"image": "ResNet-50", "text": "BERT-base"}


def newest_reference(folder: Path = _RESULTS) -> ReferenceReport:
    """Return the committed reference result with the latest date in it."""
    reports = [read_result(path, ReferenceReport) for path in folder.glob("*.json")]
    return max(reports, key=lambda report: report.environment.date)


def by_engine(report: ReferenceReport) -> str:
    """Return the latency of both towers with every engine."""
    engines = [engine for engine in _ENGINES if any(t.engine == engine for t in report.timings)]
    groups: dict[tuple[str, int], dict[str, EngineTiming]] = {}
    for timing in report.timings:
        groups.setdefault((timing.tower, timing.batch_size), {})[timing.engine] = timing
    rows = [
        [_TOWERS[tower], str(size), *(f"{found[name].p50_ms:.0f} ({found[name].speedup:.2f}x)" for name in engines)]
        for (tower, size), found in groups.items()
    ]
    card = report.environment
    share = "" if card.others_cpu_share is None else f"; other processes took {card.others_cpu_share:.0%} of the CPU"
    note = f"Random weights, all engines interleaved in one run (`make bench`, {card.cpu}, {card.date[:10]}{share}):"
    head = ("p50 ms (times eager)", "batch", *(_ENGINES[name] for name in engines))
    return f"{note}\n\n{table(head, rows)}"


def golden_stages(bench: BenchReport) -> str:
    """Return the time of the demo's golden items, which are unusual on purpose."""
    rows = [
        [t.kind, str(t.batch_size), t.stage, f"{t.p50_ms:.1f}", f"{t.p90_ms:.1f}", f"{t.items_per_s:.0f}"]
        for t in bench.timings
        if t.stage in ("tower", "total") and t.batch_size in (1, 32)
    ]
    card = f"{bench.environment.cpu}, {bench.environment.runtime.num_threads} threads, {bench.environment.date[:10]}"
    note = "`mmalign bench demo/bundle`, golden items: images up to 20 megapixels, texts up to the context length"
    return f"{note} ({card}):\n\n{table(('', 'batch', 'stage', 'p50 ms', 'p90 ms', 'items/s'), rows)}"
