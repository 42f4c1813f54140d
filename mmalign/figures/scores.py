"""How well a model retrieves: what an evaluation measures, writes down, and a bundle's card shows."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

from mmalign.figures.bootstrap import Difference, Interval, Resampling
from mmalign.figures.calibration import Calibration
from mmalign.figures.geometry import Geometry
from mmalign.figures.prefixes import PrefixScores
from mmalign.figures.retrieval import Recall
from mmalign.figures.retrieval_set import Captions

Checkpoint = Literal["best", "last"]
SplitName = Literal["val", "test"]


Value = TypeVar("Value", Interval, Difference)


class PerFigure(msgspec.Struct, Generic[Value], frozen=True):
    """Something of each figure that is a mean over queries: recall at 1, 5 and 10, and those of `Ranking`."""

    at_1: Value
    at_5: Value
    at_10: Value
    mean_reciprocal_rank: Value
    ndcg_at_10: Value
    mean_average_precision: Value


class Ranking(msgspec.Struct, frozen=True):
    """Means over queries, 0..1: of 1 / rank of the best right answer, of nDCG@10, and of average precision.

    nDCG's relevance is graded by keywords (`mmalign.figures.graded`). `intervals` are those of recall, too.
    """

    mean_reciprocal_rank: float
    ndcg_at_10: float
    mean_average_precision: float
    intervals: PerFigure[Interval]


class Scored(msgspec.Struct, frozen=True):
    """One method on one source: retrieval both ways; zero-shot accuracy where pairs carry a class.

    Chance has no ranking, nor has a file that an earlier version wrote.
    """

    image_to_text: Recall
    text_to_image: Recall
    zero_shot_accuracy: float | None = None
    image_to_text_ranking: Ranking | None = None
    text_to_image_ranking: Ranking | None = None
    zero_shot_interval: Interval | None = None


class Differences(msgspec.Struct, frozen=True):
    """How far the model's figures lie above the linear map's, both ways."""

    image_to_text: PerFigure[Difference]
    text_to_image: PerFigure[Difference]


class CalibrationScores(msgspec.Struct, frozen=True):
    """Calibration of the nearest caption, the nearest image and the nearest class, by the model's own similarity.

    None where there are no classes, or nothing says how to read a cosine.
    """

    image_to_text: Calibration | None
    text_to_image: Calibration | None
    classes: Calibration | None


class LanguageScores(msgspec.Struct, frozen=True):
    """Recall among the captions of one language alone, and of the images that have one."""

    language: str
    num_images: int
    num_captions: int
    image_to_text: Recall
    text_to_image: Recall


class Diagnosis(msgspec.Struct, frozen=True):
    """What else is measured of a model: `resampling` says how all intervals beside it were made."""

    calibration: CalibrationScores
    geometry: Geometry
    prefixes: tuple[PrefixScores, ...]
    languages: tuple[LanguageScores, ...]
    resampling: Resampling


class SourceScores(msgspec.Struct, frozen=True):
    """One source's figures: the trained model, the linear map and chance on the same images and captions.

    `num_trained_on` counts the images, byte for byte, that the model learned from: their figures say nothing; None
    where that is not known. `differences` and `diagnosis` are None in a file that an earlier version wrote.
    """

    source: str
    is_held_out: bool
    num_images: int
    num_captions: int
    num_classes: int
    model: Scored
    linear_map: Scored
    chance: Scored
    num_trained_on: int | None = None
    differences: Differences | None = None
    diagnosis: Diagnosis | None = None


class BundleScores(msgspec.Struct, frozen=True):
    """What `mmalign evaluate BUNDLE --pairs FILE` measures: a bundle's figures beside chance.

    What its model was trained on is not known, so that nobody can say whether these pairs were among it.
    """

    space_id: str
    precision: str
    num_images: int
    num_captions: int
    num_classes: int
    model: Scored
    chance: Scored
    diagnosis: Diagnosis | None = None


class Evaluation(msgspec.Struct, frozen=True):
    """What `mmalign evaluate` measures, and writes to run/evaluation.json.

    `checkpoint` is which of a run's it was, and `weights_sha256` the hash of its file, which a run that goes on writes
    anew; None for a model that is not a run.
    """

    split: SplitName
    checkpoint: Checkpoint | None
    captions: Captions
    linear_map_strength: float
    sources: tuple[SourceScores, ...]
    weights_sha256: str | None = None
