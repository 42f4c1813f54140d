"""What a method answers on one set of images and captions, query by query, and the figures that come of it.

The same for a run, its linear map, and a bundle. Shapes: Q queries, N images, M captions, C classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmalign.figures.bootstrap import Difference, Interval, Resampling, intervals
from mmalign.figures.calibration import Calibration, calibration
from mmalign.figures.geometry import geometry
from mmalign.figures.graded import GradedRelevance
from mmalign.figures.prefixes import prefix_scores
from mmalign.figures.ranked import Ranked, rank
from mmalign.figures.retrieval import RECALL_AT, Recall, Relevance, recall, recall_of_ranks
from mmalign.figures.retrieval_set import RetrievalSet
from mmalign.figures.scores import (
    CalibrationScores,
    Diagnosis,
    Differences,
    LanguageScores,
    PerFigure,
    Ranking,
    Scored,
)
from mmalign_runtime.spec import Similarity

RESAMPLING = Resampling()


class Vectors(msgspec.Struct, frozen=True, eq=False):
    """Unit vectors of a set's images (N, D), of its captions (M, D), and one a class (C, D), None without classes."""

    images: Tensor
    texts: Tensor
    classes: Tensor | None = None


class Answers(msgspec.Struct, frozen=True, eq=False):
    """What each query came to: images among captions, captions among images, and images with a class among classes."""

    image_to_text: Ranked
    text_to_image: Ranked
    classes: Ranked | None


def answer(
    items: RetrievalSet, classes: Sequence[str], vectors: Vectors, similarity: Similarity | None = None
) -> Answers:
    """Rank everything, both ways. `similarity` is what the method makes of a cosine, None for one that has none."""
    graded = items.graded()
    of_classes = None
    if vectors.classes is not None:
        rows, relevant = _classified(items, classes)
        graded_classes = GradedRelevance(relevant, [frozenset()] * len(classes))
        of_classes = rank(vectors.images[rows], vectors.classes, graded_classes, similarity)
    return Answers(
        rank(vectors.images, vectors.texts, graded, similarity),
        rank(vectors.texts, vectors.images, graded.reversed(), similarity),
        of_classes,
    )


def scored(items: RetrievalSet, answers: Answers) -> Scored:
    """Return the figures of a method's answers, with their intervals."""
    to_text, to_image = answers.image_to_text, answers.text_to_image
    of_images, of_texts = _concepts(items)
    accuracy, interval = None, None
    if answers.classes is not None:
        is_right = answers.classes.ranks == 1
        accuracy = float(is_right.mean())
        (interval,) = intervals(is_right[:, None].astype(np.float64), of_images[_labelled(items)], RESAMPLING)
    return Scored(
        image_to_text=recall_of_ranks(torch.from_numpy(to_text.ranks)),
        text_to_image=recall_of_ranks(torch.from_numpy(to_image.ranks)),
        zero_shot_accuracy=accuracy,
        image_to_text_ranking=_ranking(to_text, of_images),
        text_to_image_ranking=_ranking(to_image, of_texts),
        zero_shot_interval=interval,
    )


def differences(items: RetrievalSet, model: Answers, linear_map: Answers) -> Differences:
    """Return how far a model is ahead of the linear map, query by query on the same items."""
    of_images, of_texts = _concepts(items)
    return Differences(
        _ahead(model.image_to_text, linear_map.image_to_text, of_images),
        _ahead(model.text_to_image, linear_map.text_to_image, of_texts),
    )


def diagnosis(
    items: RetrievalSet, answers: Answers, vectors: Vectors, *, declared: Sequence[int], asked: Sequence[int]
) -> Diagnosis:
    """Return what else is to be known of a model's vectors: how sure it is, how they lie, how few components do.

    `declared` are the prefixes that it was trained for, `asked` others to try. Raises ConfigError for one too long.
    """
    prefixes = prefix_scores(vectors.images, vectors.texts, items.relevant, declared, asked)
    return Diagnosis(
        calibration=CalibrationScores(
            _calibration(answers.image_to_text),
            _calibration(answers.text_to_image),
            None if answers.classes is None else _calibration(answers.classes),
        ),
        geometry=geometry(vectors.images, vectors.texts, items.relevant),
        prefixes=prefixes,
        languages=_languages(items, vectors),
        resampling=RESAMPLING,
    )


def _ranking(ranked: Ranked, concepts: NDArray[np.int64]) -> Ranking:
    values = _values(ranked)
    reciprocal, ndcg, precision = values[:, len(RECALL_AT) :].mean(axis=0).tolist()
    return Ranking(reciprocal, ndcg, precision, PerFigure[Interval](*intervals(values, concepts, RESAMPLING)))


def _ahead(model: Ranked, linear_map: Ranked, concepts: NDArray[np.int64]) -> PerFigure[Difference]:
    values = _values(model) - _values(linear_map)
    found = zip(values.mean(axis=0).tolist(), intervals(values, concepts, RESAMPLING), strict=True)
    return PerFigure[Difference](*(Difference(mean, each.low, each.high) for mean, each in found))


def _values(ranked: Ranked) -> NDArray[np.float64]:
    """Return (Q, 6): of each query what the fields of PerFigure are the means of."""
    hits = [ranked.ranks <= k for k in RECALL_AT]
    return np.stack([*hits, 1 / ranked.ranks, ranked.ndcg, ranked.average_precision], axis=1, dtype=np.float64)


def _calibration(ranked: Ranked) -> Calibration | None:
    return None if ranked.confidence is None else calibration(ranked.confidence, ranked.ranks == 1)


def _concepts(items: RetrievalSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the concept of each image (N,) and each caption (M,), the first of those that have several."""
    sides = items.relevant.query_labels, items.relevant.candidate_labels
    images, texts = (np.array([labels[0] for labels in side], np.int64) for side in sides)
    return images, texts


def _labelled(items: RetrievalSet) -> list[int]:
    return [row for row, own in enumerate(items.groups) if own]


def _classified(items: RetrievalSet, classes: Sequence[str]) -> tuple[list[int], Relevance]:
    """Return the images that have a class, and which classes are right for them."""
    position = {name: at for at, name in enumerate(classes)}
    rows = _labelled(items)
    labels = [tuple(position[name] for name in sorted(items.groups[row])) for row in rows]
    return rows, Relevance(labels, [(at,) for at in range(len(classes))])


def _languages(items: RetrievalSet, vectors: Vectors) -> tuple[LanguageScores, ...]:
    return tuple(_of_language(items, vectors, name, concepts) for name, concepts in sorted(items.languages.items()))


def _of_language(
    items: RetrievalSet, vectors: Vectors, name: str, concepts: dict[int, tuple[int, ...]]
) -> LanguageScores:
    """Score the captions of one language, by number with their concepts there, and the images that have one."""
    texts = vectors.texts[list(concepts)]
    captions = list(concepts.values())
    known = {label for labels in captions for label in labels}
    rows = [row for row, labels in enumerate(items.relevant.query_labels) if not known.isdisjoint(labels)]
    relevant = Relevance([items.relevant.query_labels[row] for row in rows], captions)
    images = vectors.images[rows]
    both: tuple[Recall, Recall] = recall(images, texts, relevant), recall(texts, images, relevant.reversed())
    return LanguageScores(name, len(rows), len(texts), *both)
