"""Splits into train, validation and test by concept, not by row.

Rows that show the same thing (two captions of an image, two drawings of an emoji) are on one side, so that a
score on the test part says something about things never seen. Concepts that share an image are on one side too.
The side depends on the concept and the seed alone: reordering rows or another machine moves none, and a new row
only where it joins two concepts. Python's `hash` would, in every process.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from mmalign.data.errors import DataConfigError
from mmalign.data.identity import image_identity
from mmalign.data.pair import Pair

Split = Literal["train", "val", "test"]

HASH_BYTES = 6  # 48 bits, which a float holds exactly


class SplitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fractions of concepts that go to `val` and `test`. The rest is `train`.

    Attributes:
        val: Fraction of concepts, in [0, 1).
        test: Fraction of concepts, in [0, 1).
        seed: Seed of the draw. Another seed gives another split.
        max_caption_similarity: Cosine of two first captions, by the features of a frozen text tower, from which a
            training pair is left out as a near-synonym of a validation or test pair of any source that is evaluated.
            Unset keeps all.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    max_caption_similarity: Annotated[float, msgspec.Meta(gt=-1, lt=1)] | None = None

    def __post_init__(self) -> None:
        """Raise `DataConfigError` for fractions that leave nothing to train on."""
        # Written so that NaN, for which every comparison is false, fails too.
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise DataConfigError(
                f"val = {self.val} and test = {self.test}; expected fractions of 0 or more, sum below 1. "
                "The usual ones are 0.1 and 0.1"
            )


class Splits(msgspec.Struct, frozen=True):
    """The pairs of each side, in the order they came in."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]


def split_of(concept: str, config: SplitConfig) -> Split:
    """Return the side of a concept.

    Test takes the low end of the hash and val the high end, so changing a fraction never moves a concept
    between those two.
    """
    key = f"{config.seed}:{concept}".encode("utf-8", "surrogatepass")  # paths may hold undecodable bytes
    digest = hashlib.blake2b(key, digest_size=HASH_BYTES).digest()
    position = int.from_bytes(digest, "big") / 2 ** (8 * HASH_BYTES)  # in [0, 1)
    if position < config.test:
        return "test"
    return "val" if position >= 1 - config.val else "train"


def joined_concepts(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return for each concept the one whose side it takes: the first by name of those that images join to it.

    A concept that has its name from an image, for want of a better one, gives way to one that was named.
    """
    of_image: dict[str, str] = {}
    parents: dict[str, str] = {}

    def root(concept: str) -> str:
        while parents[concept] != concept:
            parents[concept] = concept = parents[parents[concept]]
        return concept

    for pair in pairs:
        parents.setdefault(pair.concept, pair.concept)
        first, second = root(of_image.setdefault(image_identity(pair), pair.concept)), root(pair.concept)
        low, high = sorted((first, second), key=lambda concept: (concept in of_image, concept))
        parents[high] = low
    return {concept: root(concept) for concept in parents}


def split_pairs(pairs: Sequence[Pair], config: SplitConfig, joined: Mapping[str, str] | None = None) -> Splits:
    """Put each pair on the side of its concept.

    `joined` is what `joined_concepts` says of these pairs and of others that must not be split apart from them.
    """
    joined = joined_concepts(pairs) if joined is None else joined
    sides: dict[Split, list[Pair]] = {"train": [], "val": [], "test": []}
    for pair in pairs:
        sides[split_of(joined[pair.concept], config)].append(pair)
    return Splits(tuple(sides["train"]), tuple(sides["val"]), tuple(sides["test"]))


def split_sources(
    sources: Sequence[Sequence[Pair]],
    is_evaluated: Sequence[bool],
    config: SplitConfig,
    joined: Mapping[str, str],
) -> list[Splits]:
    """Put the pairs of several sources on their sides, those of a source that is not evaluated on the train side.

    Of such a source the pairs are left out whose concept is in val or test of an evaluated one, or shares an image with
    a concept that is, also by way of others. `joined` is of the evaluated sources alone, so that the others move no
    concept of theirs.
    """
    splits = [
        split_pairs(pairs, config, joined) if own else Splits(tuple(pairs), (), ())
        for pairs, own in zip(sources, is_evaluated, strict=True)
    ]
    if all(is_evaluated):
        return splits
    everywhere = joined_concepts(pair for pairs in sources for pair in pairs)
    withheld = {everywhere[pair.concept] for each in splits for pair in (*each.val, *each.test)}
    return [
        each if own else Splits(tuple(pair for pair in each.train if everywhere[pair.concept] not in withheld), (), ())
        for each, own in zip(splits, is_evaluated, strict=True)
    ]
