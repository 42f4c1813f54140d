"""Figures that come of vectors: of ideal ones what is known, of random ones what plain numpy gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.data import Origin, Pair
from mmalign.figures.answers import Vectors, answer, diagnosis, differences, scored
from mmalign.figures.retrieval import recall_both_ways
from mmalign.figures.retrieval_set import RetrievalSet, build_retrieval_set
from mmalign_runtime.spec import Similarity

CLASSES = ("animal", "thing")
SOFTMAX = Similarity(kind="softmax", scale=10.0)


def pair(number: int) -> Pair:
    """Two images a concept; each concept has a name in English and, but for the last, in German, and a shared word."""
    concept, group = f"c{number // 2}", CLASSES[number % 2] if number % 3 else None
    named = [("en", f"name {concept}"), ("en", f"word {number // 6}")]
    named += [("de", f"Name {concept}")] if concept != "c8" else []
    captions = tuple(text for _, text in named)
    return Pair(f"image {number}".encode(), captions, concept, Origin(Path("x")), group, f"i{number:02}", tuple(named))


@pytest.fixture
def items() -> RetrievalSet:
    return build_retrieval_set([pair(number) for number in range(18)], "all")


def unit(num_rows: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def vectors(items: RetrievalSet) -> Vectors:
    return Vectors(unit(len(items.pairs), 0), unit(len(items.texts), 1), unit(2, 2))


def test_recall_is_what_it_always_was(items: RetrievalSet, vectors: Vectors) -> None:
    found = scored(items, answer(items, CLASSES, vectors))
    expected = recall_both_ways(vectors.images, vectors.texts, items.relevant)
    assert (found.image_to_text, found.text_to_image) == expected
    assert found.image_to_text_ranking is not None
    for interval, share in zip(("at_1", "at_5", "at_10"), found.image_to_text.shares(), strict=True):
        lies = getattr(found.image_to_text_ranking.intervals, interval)
        assert lies.low <= share <= lies.high


def test_accuracy_is_of_images_with_a_class_and_ties_do_not_count(items: RetrievalSet, vectors: Vectors) -> None:
    found = scored(items, answer(items, CLASSES, vectors))
    assert vectors.classes is not None
    nearest = (vectors.images @ vectors.classes.T).argmax(dim=1).tolist()
    rows = [row for row, own in enumerate(items.groups) if own]
    right = [CLASSES[nearest[row]] in items.groups[row] for row in rows]
    assert len(rows) == 12
    assert found.zero_shot_accuracy == pytest.approx(sum(right) / 12)
    same = Vectors(vectors.images, vectors.texts, torch.ones(2, 6) / 6**0.5)
    assert scored(items, answer(items, CLASSES, same)).zero_shot_accuracy == 0


def test_an_image_of_two_classes_is_right_as_either() -> None:
    pairs = [Pair(b"1", ("x",), "x", Origin(Path("x")), group, "i") for group in CLASSES]
    both = build_retrieval_set(pairs, "all")
    vectors = Vectors(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.eye(2))
    assert scored(both, answer(both, CLASSES, vectors)).zero_shot_accuracy == 1


def test_the_model_is_ahead_by_the_difference_of_the_figures(items: RetrievalSet, vectors: Vectors) -> None:
    right = [int(items.relevant.right(row)[0]) for row in range(len(items.pairs))]
    texts = unit(len(items.texts), 4)
    ideal = answer(items, (), Vectors(texts[right], texts))
    other = answer(items, (), Vectors(vectors.images, vectors.texts))
    ahead = differences(items, ideal, other)
    for way in ("image_to_text", "text_to_image"):
        of_ideal, of_other = (getattr(scored(items, each), way) for each in (ideal, other))
        found = getattr(ahead, way).at_1
        assert found.value == pytest.approx(of_ideal.at_1 - of_other.at_1)
        assert found.low <= found.value <= found.high
        assert getattr(differences(items, other, other), way).at_10.high == 0
    assert scored(items, ideal).image_to_text.at_1 == 1


def test_each_language_is_searched_alone(items: RetrievalSet, vectors: Vectors) -> None:
    found = diagnosis(items, answer(items, CLASSES, vectors, SOFTMAX), vectors, declared=(4,), asked=(2,))
    german, english = found.languages
    assert (german.language, german.num_captions, german.num_images) == ("de", 8, 16)
    assert (english.language, english.num_captions, english.num_images) == ("en", 12, 18)
    own = [text for text in items.texts if text.startswith("Name")]
    texts = vectors.texts[[items.texts.index(text) for text in own]]
    cosines = (vectors.images @ texts.T).numpy()
    concepts = [each.concept for each in items.pairs]
    hits = [own[cosines[row].argmax()] == f"Name {concept}" for row, concept in enumerate(concepts) if concept != "c8"]
    assert german.image_to_text.at_1 == pytest.approx(sum(hits) / 16)
    back = [concepts[cosines[:, column].argmax()] == text[5:] for column, text in enumerate(own)]
    assert german.text_to_image.at_1 == pytest.approx(sum(back) / 8)
    assert [each.dim for each in found.prefixes] == [2, 4]


def test_a_method_that_reads_no_cosine_has_no_calibration(items: RetrievalSet, vectors: Vectors) -> None:
    found = diagnosis(items, answer(items, (), vectors_without_classes(vectors)), vectors, declared=(), asked=())
    assert (found.calibration.image_to_text, found.calibration.classes, found.prefixes) == (None, None, ())
    read = diagnosis(items, answer(items, CLASSES, vectors, SOFTMAX), vectors, declared=(), asked=()).calibration
    assert read.classes is not None
    assert vectors.classes is not None
    rows = [row for row, own in enumerate(items.groups) if own]
    exp = np.exp(10 * (vectors.images[rows] @ vectors.classes.T).numpy())
    sure = np.sort((exp / exp.sum(axis=1, keepdims=True)).max(axis=1))
    np.testing.assert_allclose([each.confidence for each in read.classes.bins], sure, rtol=1e-5)


def vectors_without_classes(vectors: Vectors) -> Vectors:
    return Vectors(vectors.images, vectors.texts)
