"""An evaluation's figures as rows of words, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mmalign.figures.bootstrap import Difference, Interval
from mmalign.figures.retrieval import Recall
from mmalign.figures.scores import Diagnosis, Differences, LanguageScores, PerFigure, Ranking, Scored

# The fields of PerFigure as they are shown.
_NAMES = {
    "at_1": "recall@1",
    "at_5": "recall@5",
    "at_10": "recall@10",
    "mean_reciprocal_rank": "MRR",
    "ndcg_at_10": "nDCG@10",
    "mean_average_precision": "mAP",
}

_SAME = 1e-12  # two sums of the same numbers, in another order


class Row(msgspec.Struct, frozen=True):
    """One figure: the model's, its interval, the linear map's, how far the model is ahead of it, and chance's.

    Words that are empty have nothing to say: chance has no nDCG, and a bundle no linear map.
    """

    name: str
    model: str
    interval: str
    linear_map: str
    ahead: str
    chance: str


class Group(msgspec.Struct, frozen=True):
    """The figures of one direction."""

    title: str
    rows: tuple[Row, ...]


def groups(
    model: Scored, linear_map: Scored | None, chance: Scored, differences: Differences | None, num_classes: int
) -> list[Group]:
    """Return the figures both ways, and of the classes where there are any."""
    ahead = (None, None) if differences is None else (differences.image_to_text, differences.text_to_image)
    methods = [None if each is None else _image_to_text(each) for each in (model, linear_map, chance)]
    back = [None if each is None else _text_to_image(each) for each in (model, linear_map, chance)]
    found = [
        Group("image to text", tuple(_rows(methods, ahead[0]))),
        Group("text to image", tuple(_rows(back, ahead[1]))),
    ]
    if num_classes:
        shares = (None if each is None else each.zero_shot_accuracy for each in (model, linear_map, chance))
        share, of_map, guess = map(_share, shares)
        accuracy = Row("accuracy", share, _interval(model.zero_shot_interval), of_map, "", guess)
        found.append(Group(f"{num_classes} classes", (accuracy,)))
    return found


def remarks(model: Scored, diagnosis: Diagnosis) -> list[str]:
    """Return a line for each thing that a diagnosis says; of two recalls the first is image to text."""
    lying = diagnosis.geometry
    return [
        _of_calibration(diagnosis),
        f"alignment {lying.alignment:.3f}, uniformity {lying.uniformity_images:.2f} images and "
        f"{lying.uniformity_texts:.2f} captions, modality gap {lying.modality_gap:.3f}",
        *(
            f"first {each.dim} components: recall@10 {each.image_to_text.at_10:.3f} and "
            f"{each.text_to_image.at_10:.3f}, {_kept(each.image_to_text, model.image_to_text)} and "
            f"{_kept(each.text_to_image, model.text_to_image)} of the whole"
            for each in diagnosis.prefixes
        ),
        *map(_of_language, diagnosis.languages),
        f"intervals: {diagnosis.resampling.level:.0%} of {diagnosis.resampling.num_resamples:,} resamples by concept",
    ]


class _Way(msgspec.Struct, frozen=True):
    """One direction of a method; no ranking of chance, and of a file that an earlier version wrote."""

    recall: Recall
    ranking: Ranking | None

    def value(self, name: str) -> float | None:
        """Return a figure by its name in PerFigure, None where there is none."""
        found: float | None = getattr(self.recall if hasattr(self.recall, name) else self.ranking, name, None)
        return found

    def has_one_right(self) -> bool:
        """Say whether average precision is 1 / rank, as it is where each query has one right answer."""
        found = self.ranking
        return found is None or abs(found.mean_average_precision - found.mean_reciprocal_rank) < _SAME


def _image_to_text(scored: Scored) -> _Way:
    return _Way(scored.image_to_text, scored.image_to_text_ranking)


def _text_to_image(scored: Scored) -> _Way:
    return _Way(scored.text_to_image, scored.text_to_image_ranking)


def _rows(methods: Sequence[_Way | None], ahead: PerFigure[Difference] | None) -> Iterator[Row]:
    """Yield the figures of the model, the linear map and chance."""
    ranking = None if methods[0] is None else methods[0].ranking
    for name, shown in _NAMES.items():
        if name == "mean_average_precision" and all(each is None or each.has_one_right() for each in methods):
            continue  # it would say what the MRR says
        model, linear_map, chance = ("" if each is None else _share(each.value(name)) for each in methods)
        interval = None if ranking is None else getattr(ranking.intervals, name)
        lead = None if ahead is None else getattr(ahead, name)
        if model:
            yield Row(shown, model, _interval(interval), linear_map, _lead(lead), chance)
        if name == "at_10":
            model, linear_map, chance = ("" if each is None else _plain(each.recall.median_rank) for each in methods)
            yield Row("median rank", model, "", linear_map, "", chance)


def _plain(value: float) -> str:
    """Return a number without the decimal that says nothing: 3, and 2.5."""
    return f"{value:.1f}".removesuffix(".0")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.low:.2f}-{found.high:.2f}"


def _lead(found: Difference | None) -> str:
    return "" if found is None else f"{found.low:+.2f} to {found.high:+.2f}"


def _of_calibration(diagnosis: Diagnosis) -> str:
    found = diagnosis.calibration
    named = (("image to text", found.image_to_text), ("text to image", found.text_to_image), ("classes", found.classes))
    errors = [f"{each.expected_calibration_error:.3f} {name}" for name, each in named if each is not None]
    return f"calibration error {', '.join(errors)}"


def _kept(short: Recall, whole: Recall) -> str:
    return f"{short.at_10 / whole.at_10:.0%}" if whole.at_10 else "-"


def _of_language(scores: LanguageScores) -> str:
    to_text, to_image = scores.image_to_text, scores.text_to_image
    return (
        f"{scores.language}: {scores.num_captions} captions, recall@1 {to_text.at_1:.3f} and {to_image.at_1:.3f}, "
        f"recall@10 {to_text.at_10:.3f} and {to_image.at_10:.3f}"
    )
