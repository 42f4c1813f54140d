from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.figures.retrieval import Recall
from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import LEAST_COSINE, Budget, lost_points, parse_budget

# As many digits as are written: six.
POINTS = st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000)


@given(
    points=st.dictionaries(st.sampled_from((1, 5, 10)), POINTS),
    cosine=st.integers(0, 10_000),
    golden=st.integers(0, 10_000),
)
def test_a_budget_is_read_as_it_is_written(points: dict[int, float], cosine: int, golden: int) -> None:
    budget = Budget(points, cosine / 10_000, golden / 10_000)
    assert parse_budget(str(budget)) == budget


@given(st.text(max_size=20))
def test_any_text_is_a_budget_or_a_named_error(written: str) -> None:
    try:
        budget = parse_budget(written)
    except QuantizationError as error:
        assert "budget" in str(error)
    else:
        assert 0 <= budget.mean_cosine <= 1


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("recall@3=1", r"'recall@3=1' is not known; expected terms such as recall@1=0\.5"),
        ("recall@1", "'recall@1' is not known"),
        ("recall@1=-1", "'recall@1=-1' is not known"),
        ("", "'' is not known"),
        ("recall@1=1,", "'' is not known"),
        ("cosine=1.01", "a cosine is at most 1"),
        ("cosine=99.9", "cosine=99.9: a cosine is at most 1"),
        ("golden=97", "golden=97: a cosine is at most 1"),
        ("golden=0.9,golden=0.9", "names golden twice"),
        ("recall@1=0.5,recall@1=2", "names recall@1 twice"),
        ("cosine=0.9,cosine=0.99", "names cosine twice"),
    ],
)
def test_what_is_no_budget_is_named(written: str, reason: str) -> None:
    with pytest.raises(QuantizationError, match=reason):
        parse_budget(written)


def test_the_cosine_has_a_floor_where_none_is_asked_for() -> None:
    assert parse_budget("recall@1=0.5") == Budget({1: 0.5}, LEAST_COSINE)
    assert not parse_budget("recall@1=100").allows({1: 0.0}, LEAST_COSINE - 0.001)


def test_the_golden_cases_have_a_floor_unless_told_otherwise() -> None:
    assert parse_budget("recall@1=0.5").golden_cosine == 0.97
    assert parse_budget("recall@1=0.5,golden=0.9").golden_cosine == 0.9


def test_the_mean_of_the_golden_cases_may_lose_an_eighth_of_what_the_lowest_may() -> None:
    budget = parse_budget("recall@1=0.5")
    assert budget.allows_golden(0.97, 0.99625)
    assert not budget.allows_golden(0.9699, 0.999)
    assert not budget.allows_golden(0.98, 0.9962)
    assert parse_budget("golden=0.4").allows_golden(0.41, 0.925)


def test_each_term_bounds_its_own() -> None:
    budget = parse_budget("recall@1=0.5, recall@10=0, cosine=0.99")
    assert budget.allows({1: 0.5, 5: 99.0, 10: -3.0}, 0.99)
    assert not budget.allows({1: 0.51, 5: 0.0, 10: 0.0}, 1.0)
    assert not budget.allows({1: 0.0, 5: 0.0, 10: 0.01}, 1.0)
    assert not budget.allows({1: 0.0, 5: 0.0, 10: 0.0}, 0.9899)


def test_one_question_of_two_hundred_is_half_a_point() -> None:
    before, after = (Recall(share, share, share, 1.0) for share in (141 / 200, 140 / 200))
    lost = lost_points((before, before), (after, after))
    assert parse_budget("recall@1=0.5").allows(lost, 1.0)


def test_the_floor_of_the_cosine_is_0995() -> None:
    budget = parse_budget("recall@1=0.5")
    assert budget.mean_cosine == 0.995
    assert budget.allows({1: 0.0}, 0.99501)
    assert not budget.allows({1: 0.0}, 0.99499)
    assert Budget({}) == parse_budget("cosine=0.995")


def test_rounding_is_forgiven_by_a_millionth_of_a_point() -> None:
    budget = Budget({1: 0.5})
    assert budget.allows({1: 0.5 + 0.99e-6}, 1.0)
    assert not budget.allows({1: 0.5 + 1.01e-6}, 1.0)


@pytest.mark.parametrize("cosine", [0, 1])
def test_a_cosine_goes_from_nothing_to_one(cosine: int) -> None:
    budget = parse_budget(f"cosine={cosine}")
    assert budget == Budget({}, float(cosine))
    assert msgspec.convert(msgspec.to_builtins(budget), Budget, strict=False) == budget
    for field in ("mean_cosine", "golden_cosine"):
        for outside in (-0.01, 1.01):
            with pytest.raises(msgspec.ValidationError, match=rf"at `\$\.{field}`"):
                msgspec.convert({"points": {}, field: outside}, Budget)
    assert Budget.__struct_config__.frozen


def test_lost_points_are_of_the_worse_direction_and_a_gain_is_less_than_zero() -> None:
    before = (Recall(0.5, 0.6, 0.7, 1.0), Recall(0.5, 0.6, 0.7, 1.0))
    after = (Recall(0.52, 0.6, 0.8, 1.0), Recall(0.48, 0.5, 0.75, 1.0))
    assert lost_points(before, after) == pytest.approx({1: 2.0, 5: 10.0, 10: -5.0})
