"""Graded relevance by keywords: how far a candidate that is not a query's own is related to it all the same.

An item's keywords are the captions, in small letters, of all pairs of its concepts: labels and keywords where the data
has them. The relevance of a candidate to a query is 1 where they share a concept, else the share of keywords that they
have in common: those of both over those of either (Jaccard), 0..1. Texts that are whole sentences are seldom equal, and
relevance is then 1 or 0.
Shapes: Q queries, C candidates, S sets of concepts that candidates have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmalign.retrieval import Relevance

_KEPT = 4  # rows of relevance, (S,) each, that are kept: captions of one concept follow each other


class GradedRelevance:
    """How relevant candidates are to queries, 0..1. `keywords` are those of each label (concept) by its number."""

    def __init__(self, relevant: Relevance, keywords: Sequence[frozenset[str]]) -> None:
        self.relevant = relevant
        self._keywords = keywords
        numbers: dict[tuple[int, ...], int] = {}
        self._set_of = np.array([numbers.setdefault(each, len(numbers)) for each in relevant.candidate_labels])  # (C,)
        self._sizes = np.bincount(self._set_of, minlength=len(numbers))  # (S,) candidates
        self._num_keywords = np.array([len(self._union(each)) for each in numbers])  # (S,)
        self._with_keyword = _inverted([self._union(each) for each in numbers])
        self._with_label = _inverted(numbers)
        self._of_set = lru_cache(_KEPT)(self._compute)

    def reversed(self) -> GradedRelevance:
        """Return the same of the candidates as queries."""
        return GradedRelevance(self.relevant.reversed(), self._keywords)

    def of(self, query: int, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the relevance of some candidates to a query."""
        by_set: NDArray[np.float64] = self._of_set(self.relevant.query_labels[query])  # (S,)
        found: NDArray[np.float64] = by_set[self._set_of[candidates]]
        return found

    def best(self, query: int, num_best: int) -> NDArray[np.float64]:
        """Return the highest relevances that candidates have to a query, highest first, `num_best` at most."""
        by_set = self._of_set(self.relevant.query_labels[query])  # (S,)
        found = np.flatnonzero(by_set)
        order = found[np.argsort(-by_set[found], kind="stable")[:num_best]]  # each stands for one candidate or more
        return np.repeat(by_set[order], np.minimum(self._sizes[order], num_best))[:num_best]

    def _compute(self, labels: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the relevance (S,) to a query with these labels."""
        keywords = self._union(labels)
        of_keywords = [self._with_keyword[word] for word in keywords if word in self._with_keyword]
        shared = np.bincount(np.concatenate([np.empty(0, np.int64), *of_keywords]), minlength=len(self._sizes))
        relevance = shared / np.maximum(len(keywords) + self._num_keywords - shared, 1)  # (S,)
        for label in labels:
            if label in self._with_label:
                relevance[self._with_label[label]] = 1.0
        return relevance

    def _union(self, labels: tuple[int, ...]) -> frozenset[str]:
        return frozenset[str]().union(*(self._keywords[label] for label in labels))


def _inverted(sets: Sequence[frozenset[str]] | dict[tuple[int, ...], int]) -> dict[object, NDArray[np.int64]]:
    """Return for each member of some sets the numbers of those that have it."""
    found: dict[object, list[int]] = {}
    for number, members in enumerate(sets):
        for member in members:
            found.setdefault(member, []).append(number)
    return {member: np.array(numbers, np.int64) for member, numbers in found.items()}
