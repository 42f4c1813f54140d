"""What a report says in words, cells and a picture: in the terminal, on the model card, and where nothing qualified.

The picture shows how much faster than float32 each trial is, against how far its vectors moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table

from mmalign.figures.retrieval import Recall
from mmalign_export.quantization.report import LEAST_SPEEDUP, NOT_TIMED, QuantizationReport, Trial, chart_name
from mmalign_runtime.spec import Modality, Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHOSEN, INSIDE = "chosen", "inside the budget"
_TITLES: dict[Precision, str] = {"int8": "## Quantized to eight bits", "fp16": "## In float16"}
_OFFERED, _REFUSED, _CHOSEN = "#3b6fb6", "#c9ced6", "#d1495b"
# A cosine of exactly 1 has no place on a logarithmic axis.
_LEAST_LOSS = 1e-6
# The height of a name, as a share of the panel's.
_LINE = 0.045


class _Column(msgspec.Struct, frozen=True):
    """A column's head, and its cell for a trial."""

    head: str
    cell: Callable[[Trial], str]


_TOWER = _Column("tower", lambda trial: trial.tower)
_RECIPE = _Column("recipe", Trial.name)
_RECALL = _Column("recall@1", lambda trial: _recall_at_1(trial.recall))
_LOST = _Column("lost @1", lambda trial: f"{trial.lost_points[1]:+.2f}" if trial.lost_points else "")
_COSINE = _Column("cosine", lambda trial: f"{trial.mean_cosine:.5f}")
_LOWEST = _Column("lowest", lambda trial: f"{trial.min_cosine:.4f}")
_GOLDEN = _Column("golden", lambda trial: f"{trial.golden_cosine:.4f}")
_SIZE = _Column("MB", lambda trial: f"{trial.size_bytes / 1e6:.0f}")
_RESIDENT = _Column("resident MB", lambda trial: _megabytes(trial.resident_mb))


def print_report(report: QuantizationReport) -> None:
    """Print the chosen towers, what they cost together, and a line a trial."""
    console = Console(highlight=False)
    for tower in report.fp32_size_bytes:
        console.print(f"[bold]{tower}[/bold]: {_choice(report, tower)}", soft_wrap=True)
    for note in _notes(report):
        console.print(note, soft_wrap=True)
    for tower in report.fp32_size_bytes:
        if trials_of(report, tower):
            console.print(_tower_table(report, tower))


def with_section(card: str, report: QuantizationReport) -> str:
    """Return a model card with a table of every trial, before "Origin", in place of an older one."""
    sections = [part for part in card.split("\n## ") if not f"## {part}".startswith(_TITLES[report.precision])]
    at = next((number for number, part in enumerate(sections) if part.startswith("Origin")), len(sections))
    return "\n## ".join([*sections[:at], _section(report).removeprefix("## ") + "\n", *sections[at:]])


def nothing_qualified(report: QuantizationReport) -> str:
    """Return why no tower has fewer bits, how near the nearest of each came, and what to do."""
    untried = [f"{tower} {reason}" for tower, reason in report.untried.items()]
    if not report.trials:
        return f"no tower can have fewer bits: {'; '.join(untried)}. Serve float32, or ask for another --engine."
    towers = dict.fromkeys(trial.tower for trial in report.trials)
    nearest = [max(trials_of(report, tower), key=Trial.nearness) for tower in towers]
    advice = "Calibrate on more data and on what will be served, or allow more with --budget."
    if report.asks_for_speed and all(trial.speedup() < LEAST_SPEEDUP for trial in report.trials):
        advice = (
            f"None is {LEAST_SPEEDUP} times as fast as float32 with {report.engine} on this processor, so no budget "
            "helps here: serve float32, or ask for another --engine."
        )
    return (
        f"no recipe is inside the budget {report.budget} and fast enough; the nearest: "
        f"{'; '.join([*map(_how_near, nearest), *untried])}. {advice}"
    )


def trials_of(report: QuantizationReport, tower: Modality) -> list[Trial]:
    """Return a tower's trials; none where the engine ran no candidate."""
    return [trial for trial in report.trials if trial.tower == tower]


def _verdict(report: QuantizationReport, trial: Trial) -> str:
    return CHOSEN if report.chosen.get(trial.tower) == trial else trial.refused or INSIDE


def _choice(report: QuantizationReport, tower: Modality) -> str:
    trial = report.chosen.get(tower)
    if trial is None:
        return f"stays float32: {report.untried.get(tower, 'nothing qualified')}"
    return (
        f"{trial.name()}, {trial.speedup():.2f}x as fast as float32, "
        f"lowest golden cosine {trial.golden_cosine:.4f} ({trial.golden_worst})"
    )


def _notes(report: QuantizationReport) -> list[str]:
    """Return sentences on the whole: how much is clipped, what was not measured, and the two towers together."""
    found = [f"Clipping, {line}." for tower in report.chosen if (line := report.coverage(tower))]
    if not report.asks_for_speed:
        found.append(NOT_TIMED)
    before, after = report.fp32_recall, report.pair_recall
    if before is None or after is None:
        found.append(
            f"No pairs were given: recall was not measured. The verdicts are by cosine alone, on {report.evaluation}."
        )
    else:
        found.append(
            f"Both towers together: recall@1 {_recall_at_1(before)} in float32, {_recall_at_1(after)} quantized, "
            f"{report.pair_lost_points[1]:+.2f} points lost of {report.budget}."
        )
    return found


def _how_near(trial: Trial) -> str:
    lost = f"loses {trial.lost_points[1]:.2f} points of recall@1, and " if trial.recall else ""
    return (
        f"{trial.tower} {trial.recipe!r} is {trial.speedup():.2f}x as fast as float32, {lost}"
        f"has a mean cosine of {trial.mean_cosine:.4f} and a lowest "
        f"golden cosine of {trial.golden_cosine:.4f}, of {trial.golden_worst!r}, {trial.golden_mean:.4f} on average "
        f"({trial.refused or 'inside alone'})"
    )


def _tower_table(report: QuantizationReport, tower: Modality) -> Table:
    """Return a tower's trials as the terminal shows them."""
    trials = trials_of(report, tower)
    ratios = [_Column(f"batch {speed.num_items}", partial(_ratio, at=at)) for at, speed in enumerate(trials[0].speeds)]
    columns = [*ratios, _LOST, _COSINE, _GOLDEN]
    table = Table(_RECIPE.head, title=f"{tower}, times as fast as float32", title_justify="left")
    for column in columns:
        table.add_column(column.head, justify="right")
    table.add_column("verdict")
    for trial in trials:
        found = _verdict(report, trial)
        cells = [column.cell(trial) for column in (_RECIPE, *columns)]
        table.add_row(*cells, f"[bold]{found}[/bold]" if found == CHOSEN else found)
    return table


def _section(report: QuantizationReport) -> str:
    recall = "Recall is image to text / text to image, the other tower in float32; points lost in the worse. "
    intro = (
        f"Budget {report.budget}; {report.engine} {report.engine_version}, {report.num_threads} threads, {report.cpu}, "
        f"{report.date[:10]}. Measured on {report.num_images} images and {report.num_captions} captions of "
        f"{report.evaluation}. {recall if report.fp32_recall else ''}"
        f"Golden is the lowest cosine to PyTorch over the golden cases, at least {report.least_golden_cosine:g}. "
        f"Milliseconds are of a whole batch; in brackets how many times as fast as float32 beside it, and of how many."
    )
    chart = f"![speed against cosine]({chart_name(report.precision)})"
    lines = [_TITLES[report.precision], "", intro, "", *_card_table(report), "", chart]
    return "\n".join([*lines, *(line for note in _notes(report) for line in ("", note))])


def _card_table(report: QuantizationReport) -> list[str]:
    """Return every trial as the card shows it, in Markdown."""
    speeds = report.trials[0].speeds
    times = [_Column("ms, batch" if at else "ms, one", partial(_time, at=at)) for at, _ in enumerate(speeds)]
    columns = [_TOWER, _RECIPE, *times, _RECALL, _LOST, _COSINE, _LOWEST, _GOLDEN, _SIZE, _RESIDENT]
    rows = [_float32_row(report, tower) for tower in report.fp32_size_bytes if trials_of(report, tower)]
    for trial in report.trials:
        found = _verdict(report, trial)
        rows.append([*(column.cell(trial) for column in columns), f"**{found}**" if found == CHOSEN else found])
    heads = [*(column.head for column in columns), ""]
    return [_line(heads), "|" + "---|" * len(heads), *map(_line, rows)]


def _float32_row(report: QuantizationReport, tower: Modality) -> list[str]:
    times = [f"{speed.fp32_median_ms:.1f}" for speed in trials_of(report, tower)[0].speeds]
    size, resident = f"{report.fp32_size_bytes[tower] / 1e6:.0f}", _megabytes(report.fp32_resident_mb[tower])
    return [tower, "float32", *times, _recall_at_1(report.fp32_recall), "", "1", "1", "1", size, resident, ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(trial: Trial, at: int) -> str:
    return f"{trial.speeds[at].ratio():.2f}x"


def _time(trial: Trial, at: int) -> str:
    return f"{trial.speeds[at].median_ms:.1f} ({_ratio(trial, at)}, {trial.speeds[at].num_items})"


def _recall_at_1(recall: tuple[Recall, Recall] | None) -> str:
    """Return recall@1 both ways, image to text / text to image."""
    return "" if recall is None else f"{recall[0].at_1:.3f} / {recall[1].at_1:.3f}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


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
            shares = report.clipped_shares(tower)
            clipped = shares and f"\nvalues clipped: {shares[1]:.4%} as judged, {shares[0]:.4%} at calibration"
            axes.set_xlabel(f"1 - mean cosine to float32 (lower is better){clipped or ''}")
        marks = {CHOSEN: _CHOSEN, INSIDE: _OFFERED, "refused": _REFUSED}
        handles = [axes.scatter([], [], color=colour, label=label) for label, colour in marks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(marks), frameon=False)
        figure.savefig(path, metadata={"Date": None})


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
