"""Writes the tables of README.md from committed measurements, so that no figure there was typed.

python -m benchmarks.readme                 from benchmarks/demo/results.json and the comparison with other tools
python -m benchmarks.readme --demo demo     first takes over the figures of a demo that was run there
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from typer import Option

from benchmarks.against.models import DEMO
from benchmarks.against.results import Results, latency_ms
from benchmarks.harness.command import run
from benchmarks.harness.markdown import number, table, with_tables
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import read_result, write_result
from benchmarks.performance.measured import read_measured
from mmalign.figures.scores import Evaluation
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import BundleSpec

README = ROOT / "README.md"
DEMO_RESULTS = ROOT / "benchmarks/demo/results.json"

# The sets of the latency table, as people would call them, and the tools beside this project's own.
_ITEMS = {
    ("image", "web"): "a web image",
    ("image", "phone"): "a phone photo",
    ("text", "queries"): "a query",
    ("text", "paragraphs"): "a paragraph",
}
_PEERS = ("fastembed", "eager", "onnxruntime")


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
        evaluation=read_result(demo / "run/evaluation.json", Evaluation),
        parity=_measured(open_bundle(demo / "bundle").spec),
        bench=read_result(demo / "bench.json", BenchReport),
    )
    write_result(figures, DEMO_RESULTS)


def _measured(spec: BundleSpec) -> tuple[ArtifactParity, ...]:
    return tuple(
        ArtifactParity(f"{each.tower} {each.kind}", found.num_cases, found.min_cosine, found.max_abs_difference)
        for each in spec.artifacts
        if (found := each.parity)
    )


def read_demo() -> DemoFigures:
    return read_result(DEMO_RESULTS, DemoFigures)


def readme_tables() -> str:
    demo = read_demo()
    return "\n\n".join((_recall(demo.evaluation), _parity(demo.parity), _latency(read_measured().against)))


def _recall(evaluation: Evaluation) -> str:
    rows = []
    for source in evaluation.sources:
        name = f"{source.source}, style {'never' if source.is_held_out else 'also'} trained on"
        for direction in ("image_to_text", "text_to_image"):
            scores = [getattr(one, direction) for one in (source.model, source.linear_map, source.chance)]
            figures = [f"{one.at_1:.3f}" for one in scores] + [f"{one.at_10:.3f}" for one in scores]
            rows.append([name, direction.replace("_", " "), *figures])
            name = ""
    head = ("drawings of unseen concepts", "recall", "@1", "linear map", "chance", "@10", "linear map", "chance")
    return f"### Recall of the demo\n\n{table(head, rows)}"


def _parity(parity: Sequence[ArtifactParity]) -> str:
    rows = [[p.artifact, str(p.num_cases), f"{p.min_cosine:.8f}", f"{p.max_abs_difference:.1e}"] for p in parity]
    head = ("artifact", "golden cases", "lowest cosine", "largest difference")
    return f"### Parity of the demo with eager PyTorch, from file bytes to vector\n\n{table(head, rows)}"


def _latency(against: Results) -> str:
    cases = [against.case(DEMO, kind, set_name, "single") for kind, set_name in _ITEMS]
    found = [case for case in cases if case is not None]
    rows = []
    for name in (*against.ours, *_PEERS):
        spreads = [latency_ms(case, name) for case in found]
        rows.append([against.labels[name], *(f"{number(one.p50)} ({number(one.p90)})" for one in spreads)])
    card = against.environment
    note = f"{card.cpu}, {card.num_threads} threads, {card.date[:10]}; EfficientNet-Lite0 and MiniLM, p50 (p90):"
    return f"### Latency of one item, milliseconds\n\n{note}\n\n{table(('', *_ITEMS.values()), rows)}"


def main(
    demo: Annotated[Path | None, Option(help="the folder of a demo whose figures are taken over first")] = None,
) -> None:
    if demo is not None:
        take_over(demo)
    README.write_text(with_tables(README.read_text(encoding="utf-8"), readme_tables()), encoding="utf-8")
    print(f"{README.name}: tables written")


if __name__ == "__main__":
    run(main)
