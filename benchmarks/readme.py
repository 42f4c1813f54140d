"""Writes the tables of README.md from committed measurements, so that no figure there was typed.

python benchmarks/readme.py                 from benchmarks/demo/results.json and the newest reference result
python benchmarks/readme.py --demo demo     first takes over the figures of a demo that was run there
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from benchmarks.reference.report import EngineTiming, ReferenceReport, read_report
from mmalign.scores import Evaluation
from mmalign_runtime.bench import BenchReport
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import BundleSpec

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DEMO_RESULTS = ROOT / "benchmarks/demo/results.json"
REFERENCE_RESULTS = ROOT / "benchmarks/reference/results"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

_ENGINES = {"eager": "PyTorch eager", "compile": "torch.compile", "aoti": "AOTInductor", "onnx": "ONNX Runtime"}


class ArtifactParity(msgspec.Struct, frozen=True):
    """How far an artifact's vectors were from PyTorch's."""

    artifact: str
    num_cases: int
    min_cosine: float
    max_abs_difference: float


class DemoFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a demo measured and the README quotes."""

    evaluation: Evaluation
    parity: tuple[ArtifactParity, ...]
    bench: BenchReport


def take_over(demo: Path) -> None:
    """Keep the figures of a demo in benchmarks/demo/results.json."""
    figures = DemoFigures(
        evaluation=msgspec.json.decode((demo / "run/evaluation.json").read_bytes(), type=Evaluation),
        parity=_measured(open_bundle(demo / "bundle").spec),
        bench=msgspec.json.decode((demo / "bench.json").read_bytes(), type=BenchReport),
    )
    DEMO_RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")


def _measured(spec: BundleSpec) -> tuple[ArtifactParity, ...]:
    return tuple(
        ArtifactParity(f"{each.tower} {each.kind}", found.num_cases, found.min_cosine, found.max_abs_difference)
        for each in spec.artifacts
        if (found := each.parity)
    )


def readme_tables() -> str:
    """Return the Markdown between the README's markers."""
    demo = msgspec.json.decode(DEMO_RESULTS.read_bytes(), type=DemoFigures)
    reference = read_report(newest_reference())
    sections = (_recall(demo.evaluation), _parity(demo.parity), _demo_latency(demo.bench), _reference(reference))
    return "\n\n".join(sections)


def newest_reference() -> Path:
    """Return the committed reference result with the latest date in it."""
    return max(REFERENCE_RESULTS.glob("*.json"), key=lambda path: read_report(path).environment.date)


def with_tables(readme: str, tables: str) -> str:
    """Return the README with its tables replaced. Raises ValueError when a marker is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the markers {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _recall(evaluation: Evaluation) -> str:
    rows = []
    for source in evaluation.sources:
        name = f"{source.source}, {'style held out' if source.is_held_out else 'style seen'}"
        for method, scored in (("trained", source.model), ("linear map", source.linear_map), ("chance", source.chance)):
            to_text, to_image = scored.image_to_text, scored.text_to_image
            figures = (to_text.at_1, to_text.at_10, to_image.at_1, to_image.at_10)
            rows.append([name, method, *(f"{figure:.3f}" for figure in figures)])
            name = ""
    table = _table(("emoji of unseen concepts", "", "image to text @1", "@10", "text to image @1", "@10"), rows)
    return f"## Recall of the demo\n\n{table}"


def _parity(parity: Sequence[ArtifactParity]) -> str:
    rows = [[p.artifact, str(p.num_cases), f"{p.min_cosine:.8f}", f"{p.max_abs_difference:.1e}"] for p in parity]
    head = ("artifact", "golden cases", "lowest cosine", "largest difference")
    return f"## Parity of the demo with eager PyTorch, from file bytes to vector\n\n{_table(head, rows)}"


def _demo_latency(bench: BenchReport) -> str:
    rows = [
        [t.kind, str(t.batch_size), t.stage, f"{t.p50_ms:.1f}", f"{t.p90_ms:.1f}", f"{t.items_per_s:.0f}"]
        for t in bench.timings
        if t.stage in ("tower", "total") and t.batch_size in (1, 32)
    ]
    card = f"{bench.environment.cpu}, {bench.environment.runtime.num_threads} threads, {bench.environment.date[:10]}"
    head = ("demo bundle", "batch", "stage", "p50 ms", "p90 ms", "items/s")
    items = "golden images of every size and texts up to the context length"
    return f"## Latency\n\n{card}, {items}, `mmalign bench`:\n\n{_table(head, rows)}"


def _reference(report: ReferenceReport) -> str:
    engines = [engine for engine in _ENGINES if any(t.engine == engine for t in report.timings)]
    groups: dict[tuple[str, int], dict[str, EngineTiming]] = {}
    for timing in report.timings:
        groups.setdefault((timing.tower, timing.batch_size), {})[timing.engine] = timing
    rows = [
        [
            {"image": "ResNet-50", "text": "BERT-base"}[tower],
            str(size),
            *(f"{found[name].p50_ms:.0f} ({found[name].speedup:.2f}x)" for name in engines),
        ]
        for (tower, size), found in groups.items()
    ]
    head = ("p50 ms (times eager)", "batch", *(_ENGINES[name] for name in engines))
    others = report.environment.others_cpu_share
    share = "" if others is None else f"; other processes took {others:.0%} of the CPU meanwhile"
    note = f"The reference architecture, random weights, all engines taking turns in one run (`make bench`{share}):"
    return f"{note}\n\n{_table(head, rows)}"


def main() -> None:
    """Rewrite the README's tables."""
    parser = argparse.ArgumentParser(description="Write the tables of README.md.")
    parser.add_argument("--demo", type=Path, help="the folder of a demo whose figures are taken over first")
    demo = parser.parse_args().demo
    if demo is not None:
        take_over(demo)
    README.write_text(with_tables(README.read_text(encoding="utf-8"), readme_tables()), encoding="utf-8")
    print(f"{README.name}: tables written")


if __name__ == "__main__":
    main()
