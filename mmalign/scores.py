"""How well a model retrieves: what an evaluation measures, writes down, and a bundle's card shows."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmalign.retrieval import Recall
from mmalign.retrieval_set import Captions

Checkpoint = Literal["best", "last"]
SplitName = Literal["val", "test"]


class Scored(msgspec.Struct, frozen=True):
    """One method on one source: retrieval both ways; zero-shot accuracy where pairs carry a class."""

    image_to_text: Recall
    text_to_image: Recall
    zero_shot_accuracy: float | None = None


class SourceScores(msgspec.Struct, frozen=True):
    """One source's figures: the trained model, the linear map and chance on the same images and captions.

    `num_trained_on` counts the images, byte for byte, that the model learned from: their figures say nothing; None
    where that is not known.
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


class Evaluation(msgspec.Struct, frozen=True):
    """What `mmalign evaluate` measures, and writes to run/evaluation.json.

    `checkpoint` is which of a run's it was; None for a model that is not a run.
    """

    split: SplitName
    checkpoint: Checkpoint | None
    captions: Captions
    linear_map_strength: float
    sources: tuple[SourceScores, ...]
