"""A ladder of recipes whose speed and loss are given: no clock decides what these tests see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pytest
from onnx import ModelProto

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.recipes import Recipe
from mmalign_export.quantization.search import Found, GoldenFeeds, Tower, _Kept, _refusal, search
from mmalign_export.quantization.trial import Speed, open_model, run_all
from mmalign_runtime.engine.session import Feeds, Session
from tests.export.quantization.tiny_models import OPTIONS, RECALL, make_trial, turned

FEEDS = {"x": np.array([[1, 0], [0, 1], [1, 1], [-3, 4]], np.float32)}
GOLDEN = tuple({"x": FEEDS["x"][row : row + 1]} for row in range(2))
# An angle of 0.02 is a cosine of 0.9998, 0.2 one of 0.98.
BUDGET = Budget({1: 0.5}, 0.995)
EXACT, NEAR, FAR = 0.0, 0.02, 0.2


class Ladder:
    """Makes recipes, and says what was built: (recipe, what stayed in float32)."""

    def __init__(self) -> None:
        self.built: list[tuple[str, frozenset[str]]] = []
        self._speeds: dict[str, float] = {}

    def whole(self, name: str, speed: float, angle: float, *, refused: str = "", moves: bool = False) -> Recipe:
        return Recipe(name, self._build(name, speed, lambda _: turned(angle, moves=moves)), refused=refused)

    def layered(self, name: str, speed: float, angles: Mapping[str, float]) -> Recipe:
        """Each layer that is rounded turns the vectors by its angle."""

        def model(excluded: frozenset[str]) -> ModelProto:
            return turned(sum(angle for layer, angle in angles.items() if layer not in excluded))

        return Recipe(name, self._build(name, speed, model), tuple(angles))

    def time_beside(self, session: Session, float32: Session, feeds: Feeds) -> Speed:
        name, excluded = self.built[-1]
        return Speed(len(feeds["x"]), 1 / (self._speeds[name] - 0.01 * len(excluded)), 1.0)

    def _build(
        self, name: str, speed: float, model: Callable[[frozenset[str]], ModelProto]
    ) -> Callable[[frozenset[str]], ModelProto]:
        self._speeds[name] = speed

        def build(excluded: frozenset[str]) -> ModelProto:
            self.built.append((name, excluded))
            return model(excluded)

        return build


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> Ladder:
    found = Ladder()
    monkeypatch.setattr("mmalign_export.quantization.search.time_beside", found.time_beside)
    monkeypatch.setattr("mmalign_export.quantization.search.resident_mb", lambda *_: None)
    return found


@pytest.fixture
def tower() -> Tower:
    float32 = open_model(turned(0.0).SerializeToString(), ("x",), OPTIONS)
    return Tower(
        kind="text",
        input_names=("x",),
        batches=(FEEDS,),
        timed=({"x": FEEDS["x"][:1]}, FEEDS),
        scanned=FEEDS,
        float32=float32,
        reference=run_all(float32, [FEEDS]),
        golden=GoldenFeeds(("right", "up"), GOLDEN, run_all(float32, GOLDEN)),
        recalls=lambda vectors: (RECALL, RECALL),
        options=OPTIONS,
    )


def names(offered: list[Found]) -> list[str]:
    return [found.trial.recipe for found in offered]


def test_the_fastest_inside_the_budget_comes_first(tower: Tower, ladder: Ladder) -> None:
    recipes = [ladder.whole("slow", 1.5, EXACT), ladder.whole("fast", 3.0, NEAR), ladder.whole("lossy", 4.0, FAR)]
    trials, offered = search(tower, recipes, BUDGET)
    assert names(offered) == ["fast", "slow"]
    assert {trial.recipe: trial.refused for trial in trials} == {"slow": "", "fast": "", "lossy": "outside the budget"}
    assert offered[0].contents == turned(NEAR).SerializeToString()
    assert offered[0].trial.mean_cosine == pytest.approx(np.cos(NEAR), abs=1e-6)


def test_of_those_that_are_alike_the_most_exact_comes_first(tower: Tower, ladder: Ladder) -> None:
    recipes = [ladder.whole("fast", 3.0, NEAR), ladder.whole("exact", 2.8, EXACT), ladder.whole("slow", 2.0, EXACT)]
    _, offered = search(tower, recipes, BUDGET)
    assert names(offered) == ["exact", "fast", "slow"]


def test_recall_is_held_to_the_budget_too(tower: Tower, ladder: Ladder) -> None:
    worse = msgspec.structs.replace(RECALL, at_1=RECALL.at_1 - 0.01)

    def recalls(vectors: np.ndarray) -> tuple:  # type: ignore[type-arg]
        return (RECALL, RECALL if np.allclose(vectors, tower.reference) else worse)

    lossy = msgspec.structs.replace(tower, recalls=recalls)
    (trial,), offered = search(lossy, [ladder.whole("near", 3.0, NEAR)], BUDGET)
    assert trial.lost_points[1] == pytest.approx(1.0)
    assert (trial.refused, offered) == ("outside the budget", [])


def test_a_refused_recipe_is_measured_and_never_offered(tower: Tower, ladder: Ladder) -> None:
    trials, offered = search(tower, [ladder.whole("dynamic", 9.0, EXACT, refused="moves")], BUDGET)
    assert ([trial.refused for trial in trials], offered) == (["moves"], [])


@pytest.mark.parametrize(("moves", "speed", "refused"), [(True, 3.0, "moves with its batch"), (False, 1.1, "too slow")])
def test_what_moves_or_gains_little_is_refused(
    tower: Tower, ladder: Ladder, moves: bool, speed: float, refused: str
) -> None:
    trials, offered = search(tower, [ladder.whole("one", speed, EXACT, moves=moves)], BUDGET)
    assert ([trial.refused for trial in trials], offered) == ([refused], [])


def test_a_candidate_far_from_pytorch_on_one_golden_case_is_refused(tower: Tower, ladder: Ladder) -> None:
    # Judged by what is close: the eval items hardly move, one golden case was turned by 0.3 beforehand.
    up = [run_all(tower.float32, GOLDEN)[0], [np.sin(0.3), np.cos(0.3)]]
    far = msgspec.structs.replace(tower, golden=GoldenFeeds(("right", "up"), GOLDEN, np.array(up, np.float32)))
    (trial,), offered = search(far, [ladder.whole("near", 3.0, EXACT)], BUDGET)
    assert (trial.refused, offered) == ("far on golden cases", [])
    assert trial.golden_cosine == pytest.approx(np.cos(0.3), abs=1e-6)
    assert trial.golden_worst == "up"
    (told,), offered = search(far, [ladder.whole("near", 3.0, EXACT)], Budget({1: 0.5}, 0.995, 0.8))
    assert (told.refused, names(offered)) == ("", ["near"])


def test_layers_are_left_out_until_the_golden_cases_are_near(tower: Tower, ladder: Ladder) -> None:
    # Each of ten layers turns by 0.03. A mean of 0.9925, an eighth of what 0.94 loses, is an angle of 0.1225: four.
    recipe = ladder.layered("lossy", 3.0, {f"layer {number}": 0.03 for number in range(10)})
    trials, offered = search(tower, [recipe], Budget({1: 0.5}, 0.5, 0.94))
    assert {trial.refused for trial in trials} == {"", "far on golden cases"}
    assert {len(found.trial.excluded) for found in offered} == {6, 8, 9}, trials
    assert all(len(trial.excluded) < 6 for trial in trials if trial.refused)


def test_nothing_more_is_left_out_of_what_is_too_slow_already(tower: Tower, ladder: Ladder) -> None:
    recipe = ladder.layered("slow soon", 1.165, {f"layer {number}": FAR for number in range(10)})
    trials, _ = search(tower, [recipe], BUDGET)
    assert [len(trial.excluded) for trial in trials] == [0, 1, 2, 1, 2]


def test_the_most_sensitive_layer_is_left_out_first(tower: Tower, ladder: Ladder) -> None:
    recipe = ladder.layered("lossy", 3.0, {"first": 0.01, "worst": FAR, "last": 0.02})
    trials, offered = search(tower, [recipe], BUDGET)
    assert [trial.excluded for trial in trials][:3] == [(), ("worst",), ("last", "worst")]
    assert ("first",) in [trial.excluded for trial in trials]
    assert all("worst" in found.trial.excluded for found in offered)
    assert not offered[0].trial.refused


def test_only_what_could_still_win_is_tried_with_layers_left_out(tower: Tower, ladder: Ladder) -> None:
    recipes = [
        ladder.whole("good", 2.0, EXACT),
        ladder.layered("slower", 1.9, {"a": FAR}),
        ladder.layered("faster", 4.0, {"a": FAR}),
        ladder.layered("faster and worse", 5.0, {"a": 2 * FAR}),
    ]
    _, offered = search(tower, recipes, BUDGET)
    assert {name for name, excluded in ladder.built if excluded} == {"faster"}
    assert offered[0].trial.recipe == "faster"
    assert offered[0].trial.excluded == ("a",)


def test_a_candidate_that_cannot_be_made_or_run_costs_itself_alone(
    tower: Tower, ladder: Ladder, caplog: pytest.LogCaptureFixture
) -> None:
    def impossible(excluded: frozenset[str]) -> ModelProto:
        raise QuantizationError("attention of another kind")

    recipes = [
        Recipe("impossible", impossible),
        Recipe("empty", lambda _: ModelProto()),
        Recipe("overflowing", lambda _: turned(0.0, value=float("nan"))),
        ladder.whole("good", 2.0, EXACT),
    ]
    trials, offered = search(tower, recipes, BUDGET)
    assert [trial.recipe for trial in trials] == names(offered) == ["good"]
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "impossible: cannot be made: attention of another kind" in told
    assert "empty: onnxruntime cannot run it" in told
    assert "overflowing: its vectors are no numbers" in told


def verdict(tower: Tower, **figures: object) -> str:
    """Say why a trial is refused that is twice as fast, moves nothing and loses nothing, but for some figures."""
    trial = make_trial("text", cosine=1.0)
    lossless = msgspec.structs.replace(trial, lost_points={1: 0.0, 5: 0.0, 10: 0.0})
    return _refusal(tower, msgspec.structs.replace(lossless, **figures), BUDGET)


def test_what_gains_a_seventh_is_offered_and_what_gains_less_is_too_slow(tower: Tower) -> None:
    assert verdict(tower, speeds=(Speed(1, 1.0, 1.151),)) == ""
    assert verdict(tower, speeds=(Speed(1, 1.0, 1.149),)) == "too slow"
    # Single items and batches count alike: the geometric mean of 1.0 and 1.33 is 1.153, that of 1.0 and 1.31 is 1.145.
    assert verdict(tower, speeds=(Speed(1, 1.0, 1.0), Speed(8, 1.0, 1.33))) == ""
    assert verdict(tower, speeds=(Speed(1, 1.0, 1.0), Speed(8, 1.0, 1.31))) == "too slow"
    unhurried = msgspec.structs.replace(tower, least_speedup=0.0)
    assert verdict(unhurried, speeds=(Speed(1, 1.0, 0.1),)) == ""


def test_a_vector_may_move_by_a_millionth_with_its_batch(tower: Tower) -> None:
    assert verdict(tower, moved_in_batch=0.99e-6) == ""
    assert verdict(tower, moved_in_batch=1e-6) == ""  # a bound is inside
    assert verdict(tower, moved_in_batch=1.01e-6) == "moves with its batch"
    half = msgspec.structs.replace(tower, invariance_bound=1e-3)
    assert verdict(half, moved_in_batch=0.99e-3) == ""
    assert verdict(half, moved_in_batch=1.01e-3) == "moves with its batch"


def test_recall_and_cosine_are_held_to_the_budget_by_its_own_numbers(tower: Tower) -> None:
    assert verdict(tower, lost_points={1: 0.5, 5: 9.0, 10: 9.0}) == ""
    assert verdict(tower, lost_points={1: 0.501, 5: 0.0, 10: 0.0}) == "outside the budget"
    assert verdict(tower, mean_cosine=0.99501) == ""
    assert verdict(tower, mean_cosine=0.99499) == "outside the budget"


def test_the_gravest_reason_is_told(tower: Tower) -> None:
    slow = (Speed(1, 1.0, 1.0),)
    assert verdict(tower, moved_in_batch=1.0, mean_cosine=0.5, speeds=slow) == "moves with its batch"
    assert verdict(tower, mean_cosine=0.5, speeds=slow) == "outside the budget"


@pytest.mark.parametrize(("slower", "first"), [(2.71, "exact"), (2.69, "fast")])
def test_what_is_within_a_tenth_of_the_fastest_is_as_fast(
    tower: Tower, ladder: Ladder, slower: float, first: str
) -> None:
    recipes = [ladder.whole("fast", 3.0, NEAR), ladder.whole("exact", slower, EXACT)]
    _, offered = search(tower, recipes, BUDGET)
    assert names(offered)[0] == first


@pytest.mark.parametrize(
    ("num_layers", "most_sensitive", "first"),
    [
        (9, (1, 2, 4, 8), (1, 2, 3, 4, 5, 6, 9)),
        (32, (1, 2, 4, 8, 16, 32), (1, 2, 3, 4, 5, 6, 9, 13)),
    ],
)
def test_layers_are_left_out_in_these_numbers(
    tower: Tower, ladder: Ladder, num_layers: int, most_sensitive: tuple[int, ...], first: tuple[int, ...]
) -> None:
    # The later a layer, the more it turns: the most sensitive are the last ones, the first of the network the first.
    layers = {f"layer {number:02}": 0.001 * number for number in range(1, num_layers)}
    recipe = ladder.layered("lossy", 3.0, {**layers, f"layer {num_layers:02}": FAR})
    trials, _ = search(tower, [recipe], BUDGET)
    assert [trial.kept for trial in trials] == [
        "",
        *(f"{count} most sensitive" for count in most_sensitive),
        *(f"first {count}" for count in first),
    ]
    assert trials[2].excluded == (f"layer {num_layers - 1:02}", f"layer {num_layers:02}")
    assert trials[len(most_sensitive) + 3].excluded == ("layer 01", "layer 02", "layer 03")


def test_the_scan_rounds_each_layer_alone(tower: Tower, ladder: Ladder) -> None:
    search(tower, [ladder.layered("lossy", 3.0, {"a": FAR, "b": 0.01, "c": 0.03})], BUDGET)
    scanned = [excluded for _, excluded in ladder.built[1:4]]
    assert scanned == [{"b", "c"}, {"a", "c"}, {"a", "b"}]


def test_a_trial_holds_what_was_measured(tower: Tower, ladder: Ladder) -> None:
    turned_far = msgspec.structs.replace(tower, recalls=lambda vectors: (RECALL, RECALL))
    (trial,), (found,) = search(turned_far, [ladder.whole("near", 2.0, NEAR)], BUDGET)
    assert (trial.tower, trial.recipe, trial.kept, trial.excluded) == ("text", "near", "", ())
    assert trial.min_cosine == pytest.approx(np.cos(NEAR), abs=1e-6)
    assert [speed.num_items for speed in trial.speeds] == [1, 4]
    assert trial.lost_points == {1: 0.0, 5: 0.0, 10: 0.0}
    assert trial.moved_in_batch < 1e-6
    assert trial.size_bytes == len(found.contents)


def test_memory_is_taken_of_one_item_and_batches_are_judged_together(
    tower: Tower, ladder: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mmalign_export.quantization.search.resident_mb", lambda contents, feeds, _: float(len(feeds["x"]))
    )
    (trial,), _ = search(tower, [ladder.whole("one", 2.0, EXACT)], BUDGET)
    assert trial.resident_mb == 1.0


def test_a_way_to_leave_layers_out_that_cannot_be_made_costs_itself_alone(tower: Tower, ladder: Ladder) -> None:
    lossy = ladder.layered("lossy", 3.0, {"a": 0.01, "b": 0.02, "c": FAR})

    def build(excluded: frozenset[str]) -> ModelProto:
        if excluded == {"c"}:
            raise QuantizationError("no float32 between two products of bytes")
        return lossy.build(excluded)

    trials, offered = search(tower, [msgspec.structs.replace(lossy, build=build)], BUDGET)
    assert frozenset({"c"}) not in {frozenset(trial.excluded) for trial in trials}
    assert frozenset({"b", "c"}) in {frozenset(found.trial.excluded) for found in offered}


@pytest.mark.parametrize(
    ("recipe", "tried"),
    [
        ({"speed": 1.2}, True),
        ({"speed": 1.1}, False),  # too slow whole: slower still with layers in float32
    ],
)
def test_layers_are_left_out_where_speed_could_still_be_enough(
    tower: Tower, ladder: Ladder, recipe: dict[str, float], tried: bool
) -> None:
    search(tower, [ladder.layered("lossy", recipe["speed"], {"a": FAR})], BUDGET)
    assert any(excluded for _, excluded in ladder.built) is tried


def test_a_recipe_that_is_refused_for_itself_is_not_tried_again(tower: Tower, ladder: Ladder) -> None:
    lossy = msgspec.structs.replace(ladder.layered("lossy", 3.0, {"a": FAR}), refused="moves")
    trials, _ = search(tower, [lossy], BUDGET)
    assert [trial.refused for trial in trials] == ["moves"]


def test_each_trial_is_told_in_a_line(tower: Tower, ladder: Ladder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        search(tower, [ladder.whole("near", 2.0, NEAR), ladder.whole("far", 3.0, FAR)], BUDGET)
    assert "text, near: 2.00x at 1, 2.00x at 4, cosine 0.99980, golden 0.9998 (0.9998 on average)" in caplog.messages[0]
    assert not caplog.messages[0].endswith("outside the budget")
    assert caplog.messages[1].endswith("recall@1 lost +0.00 points; outside the budget")


@pytest.mark.parametrize("kind", [GoldenFeeds, Tower, Found, _Kept])
def test_what_is_searched_and_found_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
