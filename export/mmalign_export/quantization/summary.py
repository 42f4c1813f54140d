"""What a report says, once, in words and cells: the terminal and the model card show it, each in its own markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from mmalign.figures.retrieval import Recall
from mmalign_export.quantization.report import NOT_TIMED, QuantizationReport, Trial
from mmalign_runtime.spec import Modality

CHOSEN, INSIDE = "chosen", "inside the budget"


class Column(msgspec.Struct, frozen=True):
    """A column's head, and its cell for a trial."""

    head: str
    cell: Callable[[Trial], str]


TOWER = Column("tower", lambda trial: trial.tower)
RECIPE = Column("recipe", Trial.name)
RECALL = Column("recall@1", lambda trial: recall_at_1(trial.recall))
LOST = Column("lost @1", lambda trial: f"{trial.lost_points[1]:+.2f}" if trial.lost_points else "")
COSINE = Column("cosine", lambda trial: f"{trial.mean_cosine:.5f}")
LOWEST = Column("lowest", lambda trial: f"{trial.min_cosine:.4f}")
GOLDEN = Column("golden", lambda trial: f"{trial.golden_cosine:.4f}")
SIZE = Column("MB", lambda trial: f"{trial.size_bytes / 1e6:.0f}")
RESIDENT = Column("resident MB", lambda trial: megabytes(trial.resident_mb))


def ratio_columns(trial: Trial) -> list[Column]:
    """Return how many times as fast as float32, a column a batch size."""
    return [Column(f"batch {speed.num_items}", partial(_ratio, at=at)) for at, speed in enumerate(trial.speeds)]


def time_columns(trial: Trial) -> list[Column]:
    """Return the milliseconds of one item and of a batch, how many times as fast as float32, and how many items."""
    return [Column("ms, batch" if at else "ms, one", partial(_time, at=at)) for at, _ in enumerate(trial.speeds)]


def _ratio(trial: Trial, at: int) -> str:
    return f"{trial.speeds[at].ratio():.2f}x"


def _time(trial: Trial, at: int) -> str:
    return f"{trial.speeds[at].median_ms:.1f} ({_ratio(trial, at)}, {trial.speeds[at].num_items})"


def verdict(report: QuantizationReport, trial: Trial) -> str:
    """Return what became of a trial."""
    return CHOSEN if report.chosen.get(trial.tower) == trial else trial.refused or INSIDE


def trials_of(report: QuantizationReport, tower: Modality) -> list[Trial]:
    """Return a tower's trials; none where the engine ran no candidate."""
    return [trial for trial in report.trials if trial.tower == tower]


def choices(report: QuantizationReport) -> list[tuple[Modality, str]]:
    """Return what was chosen for each tower."""
    return [(tower, _choice(report, tower)) for tower in report.fp32_size_bytes]


def _choice(report: QuantizationReport, tower: Modality) -> str:
    trial = report.chosen.get(tower)
    if trial is None:
        return f"stays float32: {report.untried.get(tower, 'nothing qualified')}"
    return (
        f"{trial.name()}, {trial.speedup():.2f}x as fast as float32, "
        f"lowest golden cosine {trial.golden_cosine:.4f} ({trial.golden_worst})"
    )


def notes(report: QuantizationReport) -> list[str]:
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
            f"Both towers together: recall@1 {recall_at_1(before)} in float32, {recall_at_1(after)} quantized, "
            f"{report.pair_lost_points[1]:+.2f} points lost of {report.budget}."
        )
    return found


def recall_at_1(recall: tuple[Recall, Recall] | None) -> str:
    """Return recall@1 both ways, image to text / text to image."""
    return "" if recall is None else f"{recall[0].at_1:.3f} / {recall[1].at_1:.3f}"


def megabytes(value: float | None) -> str:
    """Return whole MB, empty where they are not known."""
    return "" if value is None else f"{value:.0f}"


def row(columns: Sequence[Column], trial: Trial) -> list[str]:
    """Return a trial's cells."""
    return [column.cell(trial) for column in columns]
