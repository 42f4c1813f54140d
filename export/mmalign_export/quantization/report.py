"""What quantizing found out: every candidate's figures, and which was chosen. Written into the bundle."""

from __future__ import annotations

from pathlib import Path
from statistics import geometric_mean, mean

import msgspec

from mmalign.figures.retrieval import Recall
from mmalign_export.quantization.trial import Speed
from mmalign_runtime.clipping import ClippedTensor
from mmalign_runtime.engine.providers import ResolvedProvider
from mmalign_runtime.spec import Modality, Precision

LEAST_SPEEDUP = 1.15  # of a recipe against float32: less is not worth any loss
NOT_TIMED = "The times are of this CPU, where float16 gains nothing. It is for a GPU, and none was here to time it on."


def report_name(precision: Precision) -> str:
    """Return the name of a precision's report in a bundle."""
    return "quantization.json" if precision == "int8" else f"quantization_{precision}.json"


def chart_name(precision: Precision) -> str:
    """Return the name of the trials' picture in a bundle."""
    return str(Path(report_name(precision)).with_suffix(".svg"))


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of one tower beside float32, on this machine.

    `recall` is (image to text, text to image) with the other tower in float32, `lost_points` what it lost by k in the
    worse direction; None and empty where it was judged by cosine alone. `golden_cosine` is the lowest of the golden
    cases to PyTorch, `golden_worst` that case's name and `golden_mean` the mean.
    `moved_in_batch` is how far a vector moves, at most in any component, with its batch-mates.
    `refused` says why it is not offered, and is empty where it could be. `kept` says how the layers that stay in
    float32 were picked.
    """

    tower: Modality
    recipe: str
    excluded: tuple[str, ...]
    speeds: tuple[Speed, ...]
    mean_cosine: float
    min_cosine: float
    golden_cosine: float
    golden_worst: str
    golden_mean: float
    recall: tuple[Recall, Recall] | None
    lost_points: dict[int, float]
    moved_in_batch: float
    size_bytes: int
    resident_mb: float | None
    refused: str = ""
    kept: str = ""

    def name(self) -> str:
        """Return the recipe, and what stays in float32."""
        return f"{self.recipe}, {self.kept} in float32" if self.kept else self.recipe

    def nearness(self) -> float:
        """Return the lower of its cosines, to float32 on average and to PyTorch on the worst golden case."""
        return min(self.mean_cosine, self.golden_cosine)

    def speedup(self) -> float:
        """Return the geometric mean of the ratios: one number to rank by, for single items and batches alike."""
        return geometric_mean(speed.ratio() for speed in self.speeds)


class QuantizationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole search: budget, machine, data, float32's own recall and every trial; `chosen` by tower.

    Recall is None where no pairs were given, so that cosines alone judged.
    `least_golden_cosine` is the budget's floor of each trial's `golden_cosine`.
    `pair_lost_points` and `pair_recall` are of both chosen towers together. `asks_for_speed` is false where the towers
    are for a device that was not here: they are timed on another, and no speed is asked of them. `clipped` has the
    ranges of the chosen int8 towers that can be clipped. `untried` says why a tower has no trial.
    """

    date: str
    cpu: str
    engine: str
    engine_version: str
    num_threads: int
    calibration: str
    evaluation: str
    num_images: int
    num_captions: int
    budget: str
    least_golden_cosine: float
    fp32_recall: tuple[Recall, Recall] | None
    fp32_size_bytes: dict[Modality, int]
    fp32_resident_mb: dict[Modality, float | None]
    trials: tuple[Trial, ...]
    chosen: dict[Modality, Trial]
    pair_recall: tuple[Recall, Recall] | None = None
    pair_lost_points: dict[int, float] = {}
    precision: Precision = "int8"
    provider: ResolvedProvider = "cpu"
    asks_for_speed: bool = True
    clipped: dict[Modality, tuple[ClippedTensor, ...]] = {}
    untried: dict[Modality, str] = {}

    def clipped_shares(self, tower: Modality) -> tuple[float, float] | None:
        """Return which share of the chosen tower's rounded values is clipped, at calibration and of `evaluation`; None
        where none can be."""
        tensors = self.clipped.get(tower, ())
        if not tensors:
            return None
        return mean(each.calibration for each in tensors), mean(each.evaluation for each in tensors)

    def coverage(self, tower: Modality) -> str:
        """Return a line on how often the chosen tower's ranges are clipped; empty where none can be."""
        tensors, shares = self.clipped.get(tower, ()), self.clipped_shares(tower)
        if shares is None:
            return ""
        ours, theirs = shares
        worst = max(tensors, key=lambda each: each.evaluation)
        return (
            f"{tower}: {theirs:.4%} of rounded values are clipped on {self.evaluation}, {ours:.4%} at calibration; "
            f"most in {worst.name} ({worst.evaluation:.4%}), of {len(tensors)} ranges"
        )
