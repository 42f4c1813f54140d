"""From an evaluation to its report: gathers pictures while vectors are at hand, and writes them with the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmalign.evaluation.scoring import Shown
from mmalign.figures.scores import BundleScores, Evaluation
from mmalign.report.page import CoursePoint, bundle_section, run_sections, write_report
from mmalign.report.pictures import Pictures, pictures
from mmalign.training.metrics import read_metrics


def pictures_of(report: Path | None) -> tuple[list[Pictures], Callable[[Shown], None]]:
    """Return a list, and what an evaluation shows its sources to: their pictures are added, if there is a report."""
    seen: list[Pictures] = []

    def show(shown: Shown) -> None:
        if report is not None:
            seen.append(pictures(shown))

    return seen, show


def report_run(report: Path, run: Path, evaluation: Evaluation, seen: Sequence[Pictures]) -> None:
    """Write the report of a run, with the course of its training. Raises CheckpointError."""
    write_report(report, f"Evaluation of {run.name}", run_sections(evaluation, seen), _course(run / "metrics.csv"))


def report_bundle(report: Path, bundle: Path, scores: BundleScores, seen: Sequence[Pictures]) -> None:
    """Write the report of a bundle on some pairs. Raises CheckpointError."""
    sections = [bundle_section(scores, each) for each in seen]
    write_report(report, f"Evaluation of {bundle.name}", sections)


def _course(path: Path) -> list[CoursePoint]:
    rows = read_metrics(path) if path.is_file() else []
    return [CoursePoint(int(row["step"]), float(row["loss"]), 1 / float(row["logit_scale"])) for row in rows]
