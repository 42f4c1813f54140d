"""The chart of a report: speed relative to the baseline, a panel a tower, a group a batch size, a bar an engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from benchmarks.reference.report import EngineTiming, ReferenceReport
from mmalign_runtime.spec import Modality

# Okabe and Ito's colours, told apart with every kind of colour vision; the first three by their lightness as well.
_COLOURS = ("#E69F00", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
_INK, _MUTED = "#222222", "#6b6b6b"
_LABELS = {
    "eager": "eager PyTorch",
    "compile": "torch.compile",
    "aoti": "AOTInductor",
    "onnx": "ONNX Runtime",
}
_ARCHITECTURES: dict[Modality, str] = {"image": "Image tower: ResNet-50", "text": "Text tower: BERT-base"}
_GROUP_WIDTH = 0.8
_PANEL_INCHES, _HEIGHT_INCHES, _GAP_INCHES = 4.6, 4.0, 0.12
# The same report gives the same file: ids are salted by this instead of by chance.
_HASH_SALT = "mmalign"


def draw_chart(report: ReferenceReport, path: Path) -> None:
    """Write the chart of a report as SVG."""
    towers = list(dict.fromkeys(row.tower for row in report.timings))
    engines = [name for name in dict.fromkeys(row.engine for row in report.timings) if name != report.baseline]
    colours = dict(zip(engines, cycle(_COLOURS), strict=False))
    with plt.rc_context({"svg.hashsalt": _HASH_SALT, "svg.fonttype": "none", "font.size": 10, "text.color": _INK}):
        size = (_PANEL_INCHES * max(len(towers), 1.3), _HEIGHT_INCHES)
        layout = ConstrainedLayoutEngine(w_pad=_GAP_INCHES)
        figure, panels = plt.subplots(1, len(towers), figsize=size, sharey=True, squeeze=False, layout=layout)
        for axes, tower in zip(panels[0], towers, strict=True):
            _draw_panel(axes, [row for row in report.timings if row.tower == tower], report.baseline, colours)
        panels[0][0].set_ylabel(f"speed relative to {_label(report.baseline)}", color=_INK)
        handles = [Patch(color=colour, label=_label(engine)) for engine, colour in colours.items()]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles) or 1, frameon=False)
        figure.supxlabel(_caption(report), fontsize=8, color=_MUTED)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        plt.close(figure)


def _draw_panel(axes: Axes, rows: Sequence[EngineTiming], baseline: str, colours: dict[str, str]) -> None:
    batch_sizes = list(dict.fromkeys(row.batch_size for row in rows))
    width = _GROUP_WIDTH / max(len(colours), 1)
    for position, engine in enumerate(colours):
        of_engine = [row for row in rows if row.engine == engine]
        centres = [group - _GROUP_WIDTH / 2 + width * (position + 0.5) for group in range(len(batch_sizes))]
        _draw_bars(axes, centres, of_engine, width, colours[engine])
    axes.axhline(1, color=_INK, linewidth=1)
    base_ms = {row.batch_size: row.p50_ms for row in rows if row.engine == baseline}
    ticks = [f"batch {size}\n1.0x = {base_ms[size]:.0f} ms" for size in batch_sizes]
    axes.set_xticks(range(len(batch_sizes)), ticks)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter("{x:.1f}x")
    axes.set_title(_ARCHITECTURES[rows[0].tower], loc="left", color=_INK, fontweight="bold", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=_MUTED)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02, y=0.12)


def _draw_bars(axes: Axes, centres: Sequence[float], rows: Sequence[EngineTiming], width: float, colour: str) -> None:
    speeds = [row.speedup for row in rows]
    spread = ([row.speedup - row.speedup_p10 for row in rows], [row.speedup_p90 - row.speedup for row in rows])
    style = {"elinewidth": 1, "ecolor": _INK}
    axes.bar(centres, speeds, width * 0.92, color=colour, yerr=spread, error_kw=style)
    for centre, row in zip(centres, rows, strict=True):
        axes.annotate(
            f"{row.speedup:.2f}x",
            (centre, row.speedup_p90),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},  # a label may lie on the line of 1.0x
        )


def _caption(report: ReferenceReport) -> str:
    card = report.environment
    versions = f"torch {card.versions['torch']}, onnxruntime {card.versions['onnxruntime']}"
    what = "float32, random weights; median over turns, whiskers 10th to 90th percentile"
    return f"{card.cpu}, {card.num_threads} threads, {versions}, {card.date[:10]}\n{what}"


def _label(engine: str) -> str:
    return _LABELS.get(engine, engine)
