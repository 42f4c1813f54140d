import math
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data import (
    DataConfigError,
    Origin,
    Pair,
    SplitConfig,
    joined_concepts,
    split_of,
    split_pairs,
    split_sources,
)
from mmalign.data.split import Splits

# Lone surrogates too: that is how Python spells the undecodable bytes of a file name.
CONCEPTS = st.text(st.characters(exclude_categories=()), max_size=20)
CONFIGS = st.builds(
    SplitConfig,
    val=st.floats(0, 0.49),
    test=st.floats(0, 0.49),
    seed=st.integers(-(2**40), 2**40),
)


def pairs_of(concepts: list[str]) -> list[Pair]:
    """One pair a concept, of an image of its own."""
    origin = Origin(Path("a.csv"), line=2)
    return [Pair(b"%d" % at, (str(at),), concept, origin) for at, concept in enumerate(concepts)]


@given(st.lists(CONCEPTS, max_size=30), CONFIGS)
def test_no_concept_is_on_two_sides_and_no_pair_is_lost(concepts: list[str], config: SplitConfig) -> None:
    pairs = pairs_of(concepts * 2)
    splits = split_pairs(pairs, config)
    train, val, test = ({pair.concept for pair in side} for side in (splits.train, splits.val, splits.test))
    assert not (train & val or train & test or val & test)
    assert sorted(splits.train + splits.val + splits.test, key=pairs.index) == pairs


@given(CONCEPTS, CONFIGS, st.lists(CONCEPTS, max_size=10), st.randoms(use_true_random=False))
def test_rows_around_a_concept_never_move_it(
    concept: str, config: SplitConfig, others: list[str], random: object
) -> None:
    rows = [*others, concept]
    random.shuffle(rows)  # type: ignore[attr-defined]
    splits = split_pairs(pairs_of(rows), config)
    assert concept in {pair.concept for pair in getattr(splits, split_of(concept, config))}


# Few images and concepts, so that many are joined, some of them through others.
ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=12)


def pairs_of_rows(rows: list[tuple[str, int]]) -> list[Pair]:
    return [Pair(b"%d" % image, ("a",), concept, Origin(Path("a.csv"))) for concept, image in rows]


@given(ROWS, CONFIGS, st.randoms(use_true_random=False))
def test_neither_a_concept_nor_an_image_is_on_two_sides_in_any_order(
    rows: list[tuple[str, int]], config: SplitConfig, random: object
) -> None:
    splits = split_pairs(pairs_of_rows(rows), config)
    for found in (lambda pair: pair.concept, lambda pair: pair.image):
        train, val, test = ({found(pair) for pair in side} for side in (splits.train, splits.val, splits.test))
        assert not (train & val or train & test or val & test)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert joined_concepts(pairs_of_rows(shuffled)) == joined_concepts(pairs_of_rows(rows))


def test_concepts_are_joined_through_images_and_no_further() -> None:
    rows = [("fox", 1), ("dog", 1), ("dog", 2), ("cat", 2), ("owl", 3), ("bat", 4), ("owl", 5)]
    assert joined_concepts(pairs_of_rows(rows)) == {
        "fox": "cat", "dog": "cat", "cat": "cat", "owl": "owl", "bat": "bat"
    }  # fmt: skip


def test_a_named_concept_keeps_its_side_when_the_same_image_comes_without_a_name() -> None:
    named, unnamed = (Pair(b"1", ("a",), name, Origin(Path("a.csv")), image_id="0f") for name in ("fox", "0f"))
    joined = joined_concepts([unnamed, named])
    assert joined == {"0f": "fox", "fox": "fox"}


@given(CONCEPTS, CONFIGS, st.floats(0, 0.5))
def test_a_larger_test_fraction_takes_from_train_alone(concept: str, config: SplitConfig, test: float) -> None:
    before = split_of(concept, config)
    after = split_of(concept, SplitConfig(config.val, max(test, config.test), config.seed))
    assert after == before or (before, after) == ("train", "test")


def test_sides_are_the_recorded_ones() -> None:
    # From `printf 0:a | b2sum -l 48` and so on, over 2**48. Another hash would move concepts of every split drawn.
    sides = {concept: split_of(concept, SplitConfig()) for concept in string.ascii_lowercase}
    assert {concept for concept, side in sides.items() if side == "test"} == set("gnvw")
    assert {concept for concept, side in sides.items() if side == "val"} == set("mu")


def test_another_process_gives_the_same_sides() -> None:
    code = "from mmalign.data import *; print(''.join(split_of(str(n), SplitConfig(seed=5))[1] for n in range(200)))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert printed.stdout.strip() == "".join(split_of(str(at), SplitConfig(seed=5))[1] for at in range(200))


def test_fractions_are_met_and_the_seed_draws_anew() -> None:
    concepts = [str(at) for at in range(20_000)]
    first, second = ([split_of(concept, SplitConfig(0.2, 0.1, seed)) for concept in concepts] for seed in (0, 1))
    deviation = 4 * math.sqrt(0.2 * 0.8 / len(concepts))  # four standard deviations of a binomial share
    assert first.count("val") / len(concepts) == pytest.approx(0.2, abs=deviation)
    assert first.count("test") / len(concepts) == pytest.approx(0.1, abs=deviation)
    assert first != second


def test_fractions_of_zero_give_everything_to_train() -> None:
    splits = split_pairs(pairs_of([str(at) for at in range(500)]), SplitConfig(0, 0))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (500, 0, 0)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1.0, 0.0), (math.nan, 0.1)])
def test_impossible_fractions_are_refused(val: float, test: float) -> None:
    with pytest.raises(DataConfigError, match="expected fractions of 0 or more, sum below 1"):
        SplitConfig(val, test)


def test_a_concept_that_is_no_text_of_utf_8_has_a_side() -> None:
    sides = {split_of(f"caf\udce9/{number}.png", SplitConfig(val=0.3, test=0.3)) for number in range(50)}
    assert sides == {"train", "val", "test"}


def test_a_split_is_frozen_and_its_configuration_takes_no_other_field() -> None:
    assert SplitConfig.__struct_config__.frozen
    assert SplitConfig.__struct_config__.forbid_unknown_fields
    assert Splits.__struct_config__.frozen


@given(ROWS, ROWS, ROWS, CONFIGS)
def test_what_is_trained_on_alone_has_no_concept_or_image_that_is_evaluated_and_moves_none(
    first: list[tuple[str, int]], second: list[tuple[str, int]], alone: list[tuple[str, int]], config: SplitConfig
) -> None:
    sources = [pairs_of_rows(rows) for rows in (first, alone, second)]
    within = joined_concepts([*sources[0], *sources[2]])
    own, added, other = split_sources(sources, [True, False, True], config, within)
    assert [own, other] == [split_pairs(pairs, config, within) for pairs in (sources[0], sources[2])]
    evaluated = [pair for each in (own, other) for pair in (*each.val, *each.test)]
    assert not {pair.concept for pair in added.train} & {pair.concept for pair in evaluated}
    assert not {pair.image for pair in added.train} & {pair.image for pair in evaluated}
    assert added.val == added.test == ()
    # All else is there: what shares nothing with what is evaluated, not even through others.
    joined = joined_concepts(pair for pairs in sources for pair in pairs)
    far = {joined[pair.concept] for pair in evaluated}
    assert added.train == tuple(pair for pair in sources[1] if joined[pair.concept] not in far)


def test_a_concept_of_the_train_side_or_of_no_evaluated_source_is_trained_on_whatever_its_hash() -> None:
    config = SplitConfig(val=0.1, test=0.8)
    names = [f"thing {number}" for number in range(30)]
    shared = pairs_of(names)
    sides = split_pairs(shared, config)
    assert sides.train
    alone = pairs_of([*names, *(f"other {number}" for number in range(20))])
    alone = [Pair(b"another " + pair.image, *(pair.captions, pair.concept, pair.origin)) for pair in alone]  # type: ignore[operator]
    _, added = split_sources([shared, alone], [True, False], config, joined_concepts(shared))
    assert [pair.concept for pair in added.train] == [pair.concept for pair in (*sides.train, *alone[30:])]
