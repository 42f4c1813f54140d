"""Writes docs/performance.md and its chart, so that no figure there was typed.

python -m benchmarks.performance.report --write
"""

from pathlib import Path
from typing import Annotated

from typer import Option

from benchmarks.harness.command import run
from benchmarks.harness.markdown import table
from benchmarks.harness.places import ROOT
from benchmarks.performance import comparison
from benchmarks.performance.chart import draw_comparison
from benchmarks.performance.measured import Measured, read_measured
from benchmarks.readme import read_demo
from mmalign_runtime.bench.run import BenchReport

DOCUMENT = ROOT / "docs/performance.md"
CHART = ROOT / "docs/performance/comparison.svg"


def page(measured: Measured) -> str:
    """Return the whole document: what is written by hand, and the tables."""
    introduction, limits, tried = (
        Path(__file__).with_name(f"{name}.md").read_text(encoding="utf-8").strip()
        for name in ("introduction", "limits", "tried")
    )
    sections = (
        introduction,
        "## At a glance\n\nHow many times as fast as fastembed with its defaults (in brackets: as fastembed tuned), "
        "unless said otherwise. Medians, ResNet-50 and BERT-base, two cores.",
        comparison.glance(measured.against, measured.cold_start.cases),
        limits,
        "## Against other tools",
        "![items a second, by set and tool](performance/comparison.svg)",
        comparison.comparison(measured.against),
        "## Cold start\n\nSeconds from the start of a process to its first vector, files warm, medians of turns:",
        comparison.cold_start(measured.cold_start.cases),
        "## One item at a time, quiet and beside a busy process\n\nFloat32, one photograph and one caption, "
        "milliseconds p50, and in brackets the median ratio to onnxruntime used directly (the bundle's graphs in "
        "sessions with its defaults, the same decoder and tokenizer), round by round; each way in a process of its "
        "own. Threads that sleep are the default, `allow_spinning=True` lets them spin for at most a millisecond. "
        "Used directly, onnxruntime's threads of the preprocessing graph spin while the tower runs.",
        comparison.one_at_a_time(measured.single.cases),
        "## Golden items of the demo",
        golden_stages(read_demo().bench),
        tried,
        "## Where the figures come from",
        sources(measured),
    )
    return "\n\n".join(sections) + "\n"


def golden_stages(bench: BenchReport) -> str:
    rows = [
        [t.kind, str(t.batch_size), t.stage, f"{t.p50_ms:.1f}", f"{t.p90_ms:.1f}", f"{t.items_per_s:.0f}"]
        for t in bench.timings
        if t.stage in ("tower", "total") and t.batch_size in (1, 32)
    ]
    card = f"{bench.environment.cpu}, {bench.environment.runtime.num_threads} threads, {bench.environment.date[:10]}"
    note = "`mmalign bench demo/bundle`, golden items: images up to 20 megapixels, texts up to the context length"
    return f"{note} ({card}):\n\n{table(('', 'batch', 'stage', 'p50 ms', 'p90 ms', 'items/s'), rows)}"


def sources(measured: Measured) -> str:
    """Return the table of commands, machines and dates; `others` is CPU time that other processes took meanwhile."""
    rows = []
    for name, card in measured.environments().items():
        others = "unknown" if card.others_cpu_share is None else f"{card.others_cpu_share:.0%}"
        machine = f"{card.cpu}, {card.num_threads} threads ({' '.join(card.cpu_flags)})"
        rows.append([f"`{name}.json`", f"`{card.command}`", machine, card.date[:10], others])
    return table(("result", "command", "machine", "date", "others"), rows)


def main(write: Annotated[bool, Option(help="write the document and its chart")] = False) -> None:
    measured = read_measured()
    if write:
        DOCUMENT.write_text(page(measured), encoding="utf-8")
        draw_comparison(measured.against, CHART)
        print(f"{DOCUMENT.name}: written, with its chart")
    else:
        print(page(measured))


if __name__ == "__main__":
    run(main)
