"""The trials as a picture: how much faster than float32, against how far the vectors moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmalign_export.quantization.report import QuantizationReport, Trial, report_name
from mmalign_export.quantization.summary import CHOSEN, INSIDE, trials_of
from mmalign_runtime.spec import Modality, Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def chart_name(precision: Precision) -> str:
    """Return the name of a precision's picture in a bundle."""
    return str(Path(report_name(precision)).with_suffix(".svg"))


_OFFERED, _REFUSED, _CHOSEN = "#3b6fb6", "#c9ced6", "#d1495b"
# A cosine of exactly 1 has no place on a logarithmic axis.
_LEAST_LOSS = 1e-6
# The height of a name, as a share of the panel's.
_LINE = 0.045


def write_chart(report: QuantizationReport, path: Path) -> None:
    """Write one panel a tower: 1 - cosine across, logarithmic, speed up. Needs matplotlib, which the exporter has."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mmalign", "font.size": 9}):
        towers = list(report.fp32_size_bytes)
        figure = Figure(figsize=(6.2 * len(towers), 4.4), layout="constrained")
        for axes, tower in zip(figure.subplots(1, len(towers), squeeze=False)[0], towers, strict=True):
            _panel(axes, trials_of(report, tower), report.chosen.get(tower))
            axes.set_title(f"{tower} tower, {report.engine}", loc="left", fontweight="bold")
            axes.set_xlabel(f"1 - mean cosine to float32 (lower is better){_clipped(report, tower)}")
        marks = {CHOSEN: _CHOSEN, INSIDE: _OFFERED, "refused": _REFUSED}
        handles = [axes.scatter([], [], color=colour, label=label) for label, colour in marks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(marks), frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _clipped(report: QuantizationReport, tower: Modality) -> str:
    """Return a line on which share of the chosen tower's rounded values is clipped; empty where none can be."""
    shares = report.clipped_shares(tower)
    return "" if shares is None else f"\nvalues clipped: {shares[1]:.4%} as judged, {shares[0]:.4%} at calibration"


def _panel(axes: Axes, trials: list[Trial], chosen: Trial | None) -> None:
    for trial in trials:
        colour = _CHOSEN if trial == chosen else _REFUSED if trial.refused else _OFFERED
        axes.scatter(_loss(trial), trial.speedup(), color=colour, s=36, zorder=3)
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.12)
    axes.set_ylabel("times as fast as float32")
    axes.grid(visible=True, color="#eeeeee", zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _label(axes, [trial for trial in trials if not trial.excluded or trial == chosen])


def _label(axes: Axes, trials: list[Trial]) -> None:
    """Write names in a column beside the panel, each with a line to its point: near points would share one place."""
    bottom, top = axes.get_ylim()
    ordered = sorted(trials, key=lambda trial: -trial.speedup())
    heights = _spread([(trial.speedup() - bottom) / (top - bottom) for trial in ordered])
    for trial, height in zip(ordered, heights, strict=True):
        axes.annotate(
            trial.name(),
            (_loss(trial), trial.speedup()),
            xytext=(1.02, height),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6},
            fontsize=7,
            va="center",
        )


def _spread(heights: list[float]) -> list[float]:
    """Return heights, highest first, moved down until none is nearer to the next than a line, then up if they left."""
    spread: list[float] = []
    for height in heights:
        spread.append(min(height, spread[-1] - _LINE) if spread else height)
    for position in reversed(range(len(spread))):
        spread[position] = max(spread[position], spread[position + 1] + _LINE if position + 1 < len(spread) else 0.0)
    return spread


def _loss(trial: Trial) -> float:
    return max(1 - trial.mean_cosine, _LEAST_LOSS)
