"""What is said where no recipe qualified: how near the nearest of each tower came."""

from __future__ import annotations

from mmalign_export.quantization.report import QuantizationReport, Trial


def nothing_qualified(report: QuantizationReport) -> str:
    """Return why no tower has fewer bits, and what to do."""
    untried = [f"{tower} {reason}" for tower, reason in report.untried.items()]
    if not report.trials:
        return f"no tower can have fewer bits: {'; '.join(untried)}. Serve float32, or ask for another --engine."
    towers = dict.fromkeys(trial.tower for trial in report.trials)
    nearest = [max((trial for trial in report.trials if trial.tower == tower), key=Trial.nearness) for tower in towers]
    return (
        f"no recipe is inside the budget {report.budget} and fast enough; the nearest: "
        f"{'; '.join([*map(_how_near, nearest), *untried])}. Calibrate on more data and on what will be served, or "
        "allow more with --budget."
    )


def _how_near(trial: Trial) -> str:
    lost = f"loses {trial.lost_points[1]:.2f} points of recall@1, and " if trial.recall else ""
    return (
        f"{trial.tower} {trial.recipe!r} is {trial.speedup():.2f}x as fast as float32, {lost}"
        f"has a mean cosine of {trial.mean_cosine:.4f} and a lowest "
        f"golden cosine of {trial.golden_cosine:.4f}, of {trial.golden_worst!r}, {trial.golden_mean:.4f} on average "
        f"({trial.refused or 'inside alone'})"
    )
