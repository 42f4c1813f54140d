from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mmalign.figures.graded import GradedRelevance
from mmalign.retrieval import Relevance

# Four concepts; the third caption is of two of them.
KEYWORDS = [frozenset(words.split()) for words in ("cat pet animal", "dog pet animal", "car wheel", "tree")]
RELEVANT = Relevance([(0,), (1,), (2,), (3,), (0, 2)], [(0,), (0,), (0, 1), (2,), (3,)])


def by_the_book(query: tuple[int, ...], candidate: tuple[int, ...]) -> float:
    if set(query) & set(candidate):
        return 1.0
    mine, its = (frozenset().union(*(KEYWORDS[label] for label in labels)) for labels in (query, candidate))
    return len(mine & its) / len(mine | its)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_query_s_own_are_1_and_others_what_they_share(is_reversed: bool) -> None:
    relevant, graded = RELEVANT, GradedRelevance(RELEVANT, KEYWORDS)
    if is_reversed:
        relevant, graded = relevant.reversed(), graded.reversed()
    num_candidates = len(relevant.candidate_labels)
    found = [graded.of(query, np.arange(num_candidates)) for query in range(len(relevant.query_labels))]
    expected = [by_the_book(*each) for each in product(relevant.query_labels, relevant.candidate_labels)]
    np.testing.assert_allclose(np.concatenate(found), expected)
    for query, row in enumerate(found):
        best = np.sort(row)[::-1]
        for num_best in (1, 3, 10):
            wanted = best[:num_best]
            np.testing.assert_allclose(graded.best(query, num_best), wanted[wanted > 0])


def test_half_of_four_keywords_are_half() -> None:
    assert GradedRelevance(RELEVANT, KEYWORDS).of(1, np.array([0, 2, 3])).tolist() == [0.5, 1.0, 0.0]


def test_concepts_without_keywords_are_right_or_wrong() -> None:
    graded = GradedRelevance(Relevance([(0,)], [(0,), (1,)]), [frozenset(), frozenset()])
    assert graded.of(0, np.array([0, 1])).tolist() == [1.0, 0.0]
