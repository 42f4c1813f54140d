"""A report as pictures: where the time of an item goes, what batches gain, and how latency grows with the rate.

Needs matplotlib, which is not a dependency of the runtime: `pip install 'mmalign-runtime[charts]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign_runtime.bench.report import BenchReport
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision.
_STAGE_COLOURS = {"decode": "#E69F00", "tokenize": "#009E73", "preprocess": "#56B4E9", "tower": "#0072B2"}
_P50, _P90, _P99, _BAD = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
_KINDS: tuple[Modality, ...] = ("image", "text")
_PANEL_INCHES, _HEIGHT_INCHES = 4.8, 3.8
_DPI = 150
# Above the highest bar, for its label.
_HEADROOM = 1.1


def require_matplotlib() -> None:
    """Raise MissingDependencyError, naming the install, unless matplotlib is here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "charts need matplotlib, which is not installed. Run `pip install 'mmalign-runtime[charts]'`, or leave out "
            "--charts."
        ) from error


def draw_charts(report: BenchReport, folder: Path) -> list[Path]:
    """Draw a PNG for each part that was measured; make the folder if need be, and return the files.

    Raises MissingDependencyError without matplotlib.
    """
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    charts: tuple[tuple[str, str, Callable[[BenchReport, Modality, Axes], None], Sequence[object]], ...] = (
        ("stages.png", "Where the time of one item goes", _draw_stages, report.timings),
        ("throughput.png", "Items a second by batch size", _draw_throughput, (*report.timings, *report.bulk)),
        ("open_loop.png", "Latency since arrival, queueing included", _draw_open_loop, report.open_loop),
    )
    return [_chart(report, folder / name, title, draw) for name, title, draw, rows in charts if rows]


def _chart(report: BenchReport, path: Path, title: str, draw: Callable[[BenchReport, Modality, Axes], None]) -> Path:
    from matplotlib.figure import Figure

    kinds = [kind for kind in _KINDS if _num_items(report, kind)]
    figure = Figure(figsize=(_PANEL_INCHES * len(kinds), _HEIGHT_INCHES), dpi=_DPI, layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        draw(report, kind, axes)
        axes.set_title(f"{_num_items(report, kind)} {kind}s", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    _legend(figure, _footer(report))
    _save(figure, path)
    return path


def _draw_stages(report: BenchReport, kind: Modality, axes: Axes) -> None:
    """Stack the mean of each stage, a bar a batch size. Means, because medians of stages do not add up to the whole."""
    rows = [row for row in report.timings if row.kind == kind]
    sizes = list(dict.fromkeys(row.batch_size for row in rows))
    bottoms = [0.0] * len(sizes)
    for stage in [stage for stage in dict.fromkeys(row.stage for row in rows) if stage != "total"]:
        heights = [1000 / row.items_per_s for row in rows if row.stage == stage]
        axes.bar(_names(sizes), heights, 0.6, bottom=bottoms, color=_STAGE_COLOURS[stage], label=stage)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    for place, height in enumerate(bottoms):
        axes.annotate(f"{height:.1f}", (place, height), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    axes.set_ylim(0, max(bottoms) * _HEADROOM)
    axes.set_xlabel("batch size")
    axes.set_ylabel("mean milliseconds an item")


def _draw_throughput(report: BenchReport, kind: Modality, axes: Axes) -> None:
    """Bars of what the public path gives, beside what stages one after the other would."""
    bulk = {row.batch_size: row.items_per_s for row in report.bulk if row.kind == kind}
    stages = {row.batch_size: row.items_per_s for row in report.timings if row.kind == kind and row.stage == "total"}
    sizes = sorted({*bulk, *stages})
    groups = [("encode_image, encode_text", bulk, _P50), ("stage after stage", stages, _P90)]
    groups = [group for group in groups if group[1]]
    width = 0.8 / len(groups)
    for place, (name, of, colour) in enumerate(groups):
        heights = [of.get(size, 0.0) for size in sizes]
        left = [x + (place - (len(groups) - 1) / 2) * width for x in range(len(sizes))]
        bars = axes.bar(left, heights, width * 0.95, color=colour, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    axes.set_xticks(range(len(sizes)), _names(sizes))
    axes.set_ylim(0, max((*bulk.values(), *stages.values())) * _HEADROOM)
    axes.set_xlabel("batch size")
    axes.set_ylabel(f"{kind}s a second")


def _draw_open_loop(report: BenchReport, kind: Modality, axes: Axes) -> None:
    from matplotlib.ticker import LogFormatter

    rows = sorted((row for row in report.open_loop if row.kind == kind), key=lambda row: row.rate_per_s)
    rates = [row.rate_per_s for row in rows]
    series = (
        ("p99", [row.latency.p99_ms for row in rows], _P99),
        ("p90", [row.latency.p90_ms for row in rows], _P90),
        ("p50", [row.latency.p50_ms for row in rows], _P50),
    )
    for name, latencies_ms, colour in series:
        axes.plot(rates, latencies_ms, "o-", color=colour, label=name)
    axes.plot(rates, [row.service.p50_ms for row in rows], ":", color="#6b6b6b", label="p50 without queueing")
    lost = [(row.rate_per_s, row.latency.p99_ms) for row in rows if not row.is_sustained]
    if lost:
        axes.plot(*zip(*lost, strict=True), "x", color=_BAD, markersize=10, mew=2, label="rate not sustained")
    closed = rows[0].rate_per_s / rows[0].share
    axes.axvline(closed, color="#6b6b6b", linewidth=0.8, linestyle="--", label="closed loop's throughput")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.set_xlim(0, max(closed, *rates) * 1.05)
    axes.set_xlabel(f"{kind}s arriving a second")
    axes.set_ylabel("milliseconds")


def _legend(figure: Figure, footer: str) -> None:
    """Write what the colours mean, once for all panels, under what was measured where."""
    handles = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[label] = handle
    legend = figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        title=footer,
        title_fontsize=7,
    )
    legend.get_title().set_color("#6b6b6b")


def _num_items(report: BenchReport, kind: Modality) -> int:
    return report.num_images if kind == "image" else report.num_texts


def _names(sizes: Sequence[int]) -> list[str]:
    return [str(size) for size in sizes]


def _footer(report: BenchReport) -> str:
    card, runtime = report.environment, report.environment.runtime
    quiet = "" if report.quietness is None or report.quietness.is_quiet else ", on a NOISY machine"
    return f"{card.cpu}, {runtime.num_threads} threads, {runtime.engine} {runtime.precision}, {card.date[:10]}{quiet}"


def _save(figure: Figure, path: Path) -> None:
    from mmalign_runtime.atomic import replacing

    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
