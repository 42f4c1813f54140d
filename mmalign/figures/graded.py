"""Graded relevance by keywords: how far a candidate that is not a query's own is related to it all the same.

An item's keywords are the captions, in small letters, of all pairs of its concepts: labels and keywords where the data
has them. The relevance of a candidate to a query is 1 where they share a concept, else the share of keywords that they
have in common: those of both over those of either (Jaccard), 0..1. Texts that are whole sentences are seldom equal, and
relevance is then 1 or 0.
Shapes: Q queries, C candidates, R queries of a block, U sets of concepts that these have, S that candidates have.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.figures.retrieval import Relevance


class BlockRelevance:
    """How relevant candidates are to the queries of a block, 0..1."""

    def __init__(
        self,
        by_set: NDArray[np.float64],
        row_of: NDArray[np.int64],
        set_of: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> None:
        self._by_set = by_set  # (U, S)
        self._row_of = row_of  # (R,) of a query, in 0..U-1
        self._set_of = set_of  # (C,) of a candidate, in 0..S-1
        self._sizes = sizes  # (S,) candidates

    def of(self, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the relevance of candidates (P,) to queries of the block (P,), counted from its first."""
        found: NDArray[np.float64] = self._by_set[self._row_of[queries], self._set_of[candidates]]
        return found

    def best(self, num_best: int) -> NDArray[np.float64]:
        """Return the highest relevances (R, num_best) that candidates have to each query, highest first.

        `num_best` is at most C.
        """
        # A set stands for one candidate or more. Of rows that are mostly zeros numpy's argpartition takes
        # several times as long.
        top = torch.from_numpy(self._by_set).topk(min(num_best, len(self._sizes)), dim=1)
        ends = np.cumsum(self._sizes[top.indices.numpy()], axis=1)
        places = (ends[:, None] <= np.arange(num_best)[:, None]).sum(axis=2)  # (U, num_best)
        return np.take_along_axis(top.values.numpy(), places, axis=1)[self._row_of]


class GradedRelevance:
    """How relevant candidates are to queries, 0..1. `keywords` are those of each label (concept) by its number."""

    def __init__(self, relevant: Relevance, keywords: Sequence[frozenset[str]]) -> None:
        self.relevant = relevant
        self._keywords = keywords
        numbers: dict[tuple[int, ...], int] = {}
        self._set_of = np.array([numbers.setdefault(each, len(numbers)) for each in relevant.candidate_labels])  # (C,)
        self._sizes = np.bincount(self._set_of, minlength=len(numbers))  # (S,) candidates
        keywords_of_sets = [self._union(each) for each in numbers]
        self._num_keywords = np.array([len(each) for each in keywords_of_sets])  # (S,)
        self._with_keyword = _Inverted(keywords_of_sets)
        self._with_label = _Inverted(list(numbers))

    def reversed(self) -> GradedRelevance:
        """Return the same of the candidates as queries."""
        return GradedRelevance(self.relevant.reversed(), self._keywords)

    def block(self, start: int, num_queries: int) -> BlockRelevance:
        """Return how relevant candidates are to some queries, from one on. Takes memory for U x S numbers."""
        numbers: dict[tuple[int, ...], int] = {}
        labels = self.relevant.query_labels[start : start + num_queries]
        row_of = np.array([numbers.setdefault(each, len(numbers)) for each in labels], np.int64)  # (R,)
        keywords = [self._union(each) for each in numbers]
        shape = len(numbers), len(self._sizes)
        rows, sets = self._with_keyword.sharing(keywords)
        shared = np.bincount(rows * shape[1] + sets)
        cells = np.flatnonzero(shared)
        shared, rows, sets = shared[cells], *np.divmod(cells, shape[1])
        num_keywords = np.array([len(each) for each in keywords])  # (U,)
        by_set = np.zeros(shape)  # (U, S)
        by_set[rows, sets] = shared / (num_keywords[rows] + self._num_keywords[sets] - shared)
        by_set[self._with_label.sharing(list(numbers))] = 1.0
        return BlockRelevance(by_set, row_of, self._set_of, self._sizes)

    def _union(self, labels: tuple[int, ...]) -> frozenset[str]:
        return frozenset[str]().union(*(self._keywords[label] for label in labels))


class _Inverted:
    """Which of some sets have a member."""

    def __init__(self, sets: Sequence[Collection[Hashable]]) -> None:
        self._number_of: dict[Hashable, int] = {}
        numbers = [self._number_of.setdefault(member, len(self._number_of)) for each in sets for member in each]
        owners = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
        self._owners = owners[np.argsort(np.array(numbers, np.int64), kind="stable")]  # by member
        self._num_owners = np.bincount(np.array(numbers, np.int64), minlength=len(self._number_of))
        self._starts = np.cumsum(self._num_owners) - self._num_owners

    def sharing(self, others: Sequence[Collection[Hashable]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of an other and that of a set, once for each member that they share."""
        known = [[self._number_of[member] for member in each if member in self._number_of] for each in others]
        members = np.array([number for each in known for number in each], np.int64)
        rows = np.repeat(np.arange(len(others)), [len(each) for each in known])
        counts = self._num_owners[members]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(rows, counts), self._owners[np.repeat(self._starts[members], counts) + within]
