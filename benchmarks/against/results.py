"""What a comparison leaves: one JSON file, written anew after every round, so that a kill costs one round."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.against.protocol import Kind, Setting
from benchmarks.harness.environment import Environment
from benchmarks.harness.timing import Spread, paired_speedups, spread

Mode = Literal["batch", "single"]

_LENGTH_BOUND = 1e-3


class Cosine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cosines between an entry's vectors and those of PyTorch after our preprocessing, over the items of a set.

    `lowest_centred` is the lowest after the mean of PyTorch's vectors is taken from both: towers with random weights
    give nearly the same vector for everything, and only this sees whether what is left is the same.
    """

    mean: float
    lowest: float
    lowest_centred: float


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One setting that was tried for one entry on one set."""

    entry: str
    kind: Kind
    set_name: str
    setting: Setting
    items_per_s: float


class ItemSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a set is: its size in bytes (characters of texts in UTF-8), and the sha256 over all of its items."""

    kind: Kind
    name: str
    num_items: int
    mean_bytes: float
    sha256: str


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """One set in one mode with one model: seconds an item of every entry, round by round.

    In mode "batch" position i of each list is the same round. In mode "single" each round adds a figure for each of
    the same items, so positions match as well.
    """

    model: str
    kind: Kind
    set_name: str
    mode: Mode
    num_items: int
    seconds: dict[str, list[float]]
    cosines: dict[str, Cosine]


class Results(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A whole comparison. `settings` are by model, entry, kind and set; `skipped` says who is not in it, and why."""

    environment: Environment
    labels: dict[str, str]
    ours: tuple[str, ...]
    versions: dict[str, dict[str, str]] = {}
    sets: list[ItemSet]
    settings: dict[str, dict[str, dict[Kind, dict[str, Setting]]]] = {}
    trials: dict[str, list[Trial]] = {}
    skipped: dict[str, dict[str, str]] = {}
    cases: list[Case] = []

    def case(self, model: str, kind: Kind, set_name: str, mode: Mode) -> Case | None:
        """Return a case, or None when it was not measured."""
        key = (model, kind, set_name, mode)
        return next((case for case in self.cases if (case.model, case.kind, case.set_name, case.mode) == key), None)


def times_faster(case: Case, ours: str, peer: str) -> Spread:
    """Return how many times faster `ours` was than `peer`, pair by pair. Raises ValueError when pairs do not match."""
    return spread(paired_speedups(case.seconds[peer], case.seconds[ours]))


def items_per_s(case: Case, entry: str) -> Spread:
    return spread(1 / np.array(case.seconds[entry]))


def latency_ms(case: Case, entry: str) -> Spread:
    return spread(np.array(case.seconds[entry]) * 1000)


def cosine(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> Cosine:
    """Return the cosines of two (N, D) of unit vectors, row by row. Raises ValueError for others and for N < 2."""
    if len(expected) < 2:
        raise ValueError(f"seen {len(expected)} vectors, expected at least 2: a mean is taken away. Use more --items.")
    if vectors.shape != expected.shape or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=_LENGTH_BOUND):
        raise ValueError(f"seen vectors {vectors.shape}, expected {expected.shape} of unit length")
    found, middle = row_cosines(vectors, expected), expected.mean(axis=0)
    centred = row_cosines(vectors - middle, expected - middle)
    return Cosine(*(round(float(value), 6) for value in (found.mean(), found.min(), centred.min())))


def row_cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row of one with that of another."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    products: NDArray[np.float64] = (one * other).sum(axis=1)
    cosines: NDArray[np.float64] = products / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return cosines
