"""The trials as a picture: how much faster than float32, against how far the vectors moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmalign_export.quantize.report import QuantizationReport, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHART = "quantization.svg"

_OFFERED, _REFUSED, _CHOSEN = "#3b6fb6", "#c9ced6", "#d1495b"
# A cosine of exactly 1 has no place on a logarithmic axis.
_LEAST_LOSS = 1e-6


def write_chart(report: QuantizationReport, path: Path) -> None:
    """Write one panel a tower: 1 - cosine across, logarithmic, speed up. Needs matplotlib, which the exporter has."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mmalign", "font.size": 9}):
        towers = list(report.fp32_size_bytes)
        figure = Figure(figsize=(5.2 * len(towers), 4.2), layout="constrained")
        for axes, tower in zip(figure.subplots(1, len(towers), squeeze=False)[0], towers, strict=True):
            _panel(axes, [trial for trial in report.trials if trial.tower == tower], report.chosen.get(tower))
            axes.set_title(f"{tower} tower, {report.engine}", loc="left", fontweight="bold")
        figure.savefig(path, metadata={"Date": None})


def _panel(axes: Axes, trials: list[Trial], chosen: Trial | None) -> None:
    for trial in trials:
        colour = _CHOSEN if trial == chosen else _REFUSED if trial.refused else _OFFERED
        loss = max(1 - trial.mean_cosine, _LEAST_LOSS)
        axes.scatter(loss, trial.speedup(), color=colour, s=36, zorder=3)
        if not trial.excluded or trial == chosen:
            kept = f", {len(trial.excluded)} kept" if trial.excluded else ""
            axes.annotate(
                trial.recipe + kept, (loss, trial.speedup()), xytext=(4, 4), textcoords="offset points", fontsize=7
            )
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.12)
    axes.set_xlabel("1 - mean cosine to float32 (lower is better)")
    axes.set_ylabel("times as fast as float32")
    axes.grid(visible=True, color="#eeeeee", zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    marks = {"chosen": _CHOSEN, "inside the budget": _OFFERED, "refused": _REFUSED}
    for label, colour in marks.items():
        axes.scatter([], [], color=colour, label=label)
    axes.legend(frameon=False, fontsize=7, loc="best")
