"""The model card's section on quantization: a table of every trial, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign_export.quantization.chart import chart_name
from mmalign_export.quantization.report import QuantizationReport
from mmalign_export.quantization.summary import (
    CHOSEN,
    COSINE,
    GOLDEN,
    LOST,
    LOWEST,
    RECALL,
    RECIPE,
    RESIDENT,
    SIZE,
    TOWER,
    megabytes,
    notes,
    recall_at_1,
    row,
    time_columns,
    trials_of,
    verdict,
)
from mmalign_runtime.spec import Modality, Precision

_TITLES: dict[Precision, str] = {"int8": "## Quantized to eight bits", "fp16": "## In float16"}


def with_section(card: str, report: QuantizationReport) -> str:
    """Return a card with the section, before "Origin", in place of an older one."""
    sections = [part for part in card.split("\n## ") if not f"## {part}".startswith(_TITLES[report.precision])]
    at = next((number for number, part in enumerate(sections) if part.startswith("Origin")), len(sections))
    return "\n## ".join([*sections[:at], _section(report).removeprefix("## ") + "\n", *sections[at:]])


def _section(report: QuantizationReport) -> str:
    chart = f"![speed against cosine]({chart_name(report.precision)})"
    lines = [_TITLES[report.precision], "", _intro(report), "", *_table(report), "", chart]
    return "\n".join([*lines, *(line for note in notes(report) for line in ("", note))])


def _intro(report: QuantizationReport) -> str:
    recall = "Recall is image to text / text to image, the other tower in float32; points lost in the worse. "
    return (
        f"Budget {report.budget}; {report.engine} {report.engine_version}, {report.num_threads} threads, {report.cpu}, "
        f"{report.date[:10]}. Measured on {report.num_images} images and {report.num_captions} captions of "
        f"{report.evaluation}. {recall if report.fp32_recall else ''}"
        f"Golden is the lowest cosine to PyTorch over the golden cases, at least {report.least_golden_cosine:g}. "
        f"Milliseconds are of a whole batch; in brackets how many times as fast as float32 beside it, and of how many."
    )


def _table(report: QuantizationReport) -> list[str]:
    columns = [TOWER, RECIPE, *time_columns(report.trials[0]), RECALL, LOST, COSINE, LOWEST, GOLDEN, SIZE, RESIDENT]
    float32 = [_float32_row(report, tower) for tower in report.fp32_size_bytes if trials_of(report, tower)]
    rows = [[*row(columns, trial), _bold(verdict(report, trial))] for trial in report.trials]
    heads = [*(column.head for column in columns), ""]
    return [_line(heads), "|" + "---|" * len(heads), *map(_line, (*float32, *rows))]


def _float32_row(report: QuantizationReport, tower: Modality) -> list[str]:
    times = [f"{speed.fp32_median_ms:.1f}" for speed in trials_of(report, tower)[0].speeds]
    size, resident = f"{report.fp32_size_bytes[tower] / 1e6:.0f}", megabytes(report.fp32_resident_mb[tower])
    return [tower, "float32", *times, recall_at_1(report.fp32_recall), "", "1", "1", "1", size, resident, ""]


def _bold(found: str) -> str:
    return f"**{found}**" if found == CHOSEN else found


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
