"""Writes docs/performance.md and its charts, so that no figure there was typed.

python -m benchmarks.performance.report --write
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.harness.markdown import table
from benchmarks.performance import ceilings, charts, comparison, engines, scaling
from benchmarks.performance.glance import glance
from benchmarks.performance.measured import Measured, read_measured
from benchmarks.readme import read_demo

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/performance.md"
CHARTS = ROOT / "docs/performance"
# Written by hand, around the tables.
_PARTS = Path(__file__).parent
INTRODUCTION, LIMITS, TRIED = (_PARTS / name for name in ("introduction.md", "limits.md", "tried.md"))


def page(measured: Measured) -> str:
    """Return the whole document."""
    roofline = measured.roofline
    sections = (
        INTRODUCTION.read_text(encoding="utf-8").strip(),
        "## At a glance\n\nHow many times as fast as fastembed with its defaults (in brackets: as fastembed tuned), "
        "unless said otherwise. Medians, ResNet-50 and BERT-base, two cores.",
        glance(measured),
        LIMITS.read_text(encoding="utf-8").strip(),
        "## Against other tools",
        "![items a second, by set and tool](performance/comparison.svg)",
        comparison.comparison(measured.against),
        "## Cold start\n\nSeconds from the start of a process to its first vector, files warm, medians of turns:",
        comparison.cold_start(measured.cold_start),
        "## One item at a time, quiet and beside a busy process\n\nFloat32, one photograph and one caption, "
        "milliseconds p50, and in brackets the median ratio to onnxruntime used directly (the bundle's graphs in "
        "sessions with its defaults, the same decoder and tokenizer), round by round; each way in a process of its "
        "own. Threads that sleep are the default, `allow_spinning=True` lets them spin for at most a millisecond. "
        "Used directly, onnxruntime's threads of the preprocessing graph spin while the tower runs.",
        comparison.one_at_a_time(measured.single),
        "## Engine by engine",
        engines.by_engine(engines.newest_reference()),
        "### Golden items of the demo",
        engines.golden_stages(read_demo().bench),
        "## How far from the hardware\n\n![roofline](performance/roofline.svg)",
        "Gop/s (a multiplication and an addition are two), the fastest product of each kind and its shape:",
        ceilings.peaks(roofline),
        "By shape, median calls, all threads:",
        ceilings.by_shape(roofline),
        ceilings.bandwidth(roofline),
        "Towers through the runtime. The ceiling is the fastest product of the tower's type with all threads, through "
        "ONNX Runtime and through any engine; for an int8 tower that is the int8 ceiling.",
        ceilings.towers(roofline),
        "## How cost grows\n\n![growth](performance/growth.svg)",
        f"`{measured.growth.bundle}`, thumbnails, one `stream_images`:",
        scaling.growth(measured.growth),
        "![curves](performance/curves.svg)",
        scaling.curves(measured.curves),
        TRIED.read_text(encoding="utf-8").strip(),
        "## Where the figures come from",
        sources(measured),
    )
    return "\n\n".join(sections) + "\n"


def sources(measured: Measured) -> str:
    """Return the table of commands, machines and dates; `others` is CPU time that other processes took meanwhile."""
    rows = []
    for name, card in measured.environments().items():
        others = "unknown" if card.others_cpu_share is None else f"{card.others_cpu_share:.0%}"
        machine = f"{card.cpu}, {card.num_threads} threads ({' '.join(card.cpu_flags)})"
        rows.append([f"`{name}.json`", f"`{card.command}`", machine, card.date[:10], others])
    return table(("result", "command", "machine", "date", "others"), rows)


def draw_charts(measured: Measured, folder: Path) -> None:
    """Write every chart of the page."""
    charts.draw_comparison(measured.against, folder / "comparison.svg")
    charts.draw_roofline(measured.roofline, folder / "roofline.svg")
    charts.draw_growth(measured.growth, folder / "growth.svg")
    charts.draw_curves(measured.curves, folder / "curves.svg")


def main() -> None:
    """Print the page, or write it and its charts."""
    parser = argparse.ArgumentParser(description="Write docs/performance.md from benchmarks/performance/results.")
    parser.add_argument("--write", action="store_true", help="write the document and its charts")
    measured = read_measured()
    if parser.parse_args().write:
        DOCUMENT.write_text(page(measured), encoding="utf-8")
        draw_charts(measured, CHARTS)
        print(f"{DOCUMENT.name}: written, with its charts")
    else:
        print(page(measured))


if __name__ == "__main__":
    main()
