"""The model card's section on quantization: a table of every trial, and what was chosen."""

from __future__ import annotations

from mmalign_export.quantization.chart import chart_name
from mmalign_export.quantization.report import NOT_TIMED, QuantizationReport, Trial
from mmalign_runtime.spec import Modality, Precision

_TITLES: dict[Precision, str] = {"int8": "## Quantized to eight bits", "fp16": "## In float16"}


def with_section(card: str, report: QuantizationReport) -> str:
    """Return a card with the section, before "Origin", in place of an older one."""
    sections = [part for part in card.split("\n## ") if not f"## {part}".startswith(_TITLES[report.precision])]
    at = next((number for number, part in enumerate(sections) if part.startswith("Origin")), len(sections))
    return "\n## ".join([*sections[:at], _section(report).removeprefix("## ") + "\n", *sections[at:]])


def _section(report: QuantizationReport) -> str:
    columns = [
        "tower",
        "recipe",
        *_speed_heads(report),
        "recall@1",
        "lost",
        "cosine",
        "lowest",
        "golden",
        "MB",
        "resident MB",
        "",
    ]
    lines = [
        _TITLES[report.precision],
        "",
        f"Budget {report.budget}; {report.engine} {report.engine_version}, {report.num_threads} threads, {report.cpu}, "
        f"{report.date[:10]}. Recall on {report.num_images} images and {report.num_captions} captions of "
        f"{report.evaluation}, image to text / text to image, the other tower in float32; points lost in the worse. "
        f"Golden is the lowest cosine to PyTorch over the golden cases, at least {report.least_golden_cosine:g}. "
        f"Milliseconds are of a whole batch; in brackets how many times as fast as float32 beside it.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(_float32_row(report, tower) for tower in report.fp32_size_bytes if _trials(report, tower)),
        *(_row(trial, is_chosen=report.chosen.get(trial.tower) == trial) for trial in report.trials),
        "",
        f"![speed against cosine]({chart_name(report.precision)})",
    ]
    for tower in report.chosen:
        if line := report.coverage(tower):
            lines += ["", f"Clipping, {line}."]
    if not report.asks_for_speed:
        lines += ["", NOT_TIMED]
    if report.pair_recall is not None:
        to_text, to_image = report.pair_recall
        lost = report.pair_lost_points[1]
        lines += [
            "",
            f"Both towers together: recall@1 {to_text.at_1:.3f} / {to_image.at_1:.3f}, {lost:+.2f} points lost.",
        ]
    return "\n".join(lines)


def _speed_heads(report: QuantizationReport) -> list[str]:
    first = report.trials[0]
    return [f"ms, {'one' if position == 0 else 'batch'}" for position, _ in enumerate(first.speeds)]


def _trials(report: QuantizationReport, tower: Modality) -> list[Trial]:
    return [trial for trial in report.trials if trial.tower == tower]


def _float32_row(report: QuantizationReport, tower: Modality) -> str:
    trial = _trials(report, tower)[0]
    times = " | ".join(f"{speed.fp32_median_ms:.1f}" for speed in trial.speeds)
    to_text, to_image = report.fp32_recall
    resident = report.fp32_resident_mb[trial.tower]
    size = report.fp32_size_bytes[trial.tower] / 1e6
    recall = f"{to_text.at_1:.3f} / {to_image.at_1:.3f}"
    return f"| {tower} | float32 | {times} | {recall} | | 1 | 1 | 1 | {size:.0f} | {_number(resident)} | |"


def _row(trial: Trial, *, is_chosen: bool) -> str:
    times = " | ".join(f"{speed.median_ms:.1f} ({speed.ratio():.2f}x, {speed.num_items})" for speed in trial.speeds)
    to_text, to_image = trial.recall
    verdict = "**chosen**" if is_chosen else trial.refused or "inside the budget"
    return (
        f"| {trial.tower} | {trial.name()} | {times} | {to_text.at_1:.3f} / {to_image.at_1:.3f} "
        f"| {trial.lost_points[1]:+.2f} | {trial.mean_cosine:.5f} | {trial.min_cosine:.4f} | {trial.golden_cosine:.4f} "
        f"| {trial.size_bytes / 1e6:.0f} | {_number(trial.resident_mb)} | {verdict} |"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
