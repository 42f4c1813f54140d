"""A ladder of recipes whose speed and loss are given: no clock decides what these tests see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pytest
from onnx import ModelProto

from mmalign_export.errors import QuantizationError
from mmalign_export.quantize.budget import Budget
from mmalign_export.quantize.recipes import Recipe
from mmalign_export.quantize.search import Found, GoldenFeeds, Tower, search
from mmalign_export.quantize.trial import Speed, open_model, run_all
from mmalign_runtime.engine.session import Feeds, Session
from tests.export.quantize.tiny_models import OPTIONS, RECALL, turned

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
    monkeypatch.setattr("mmalign_export.quantize.search.time_beside", found.time_beside)
    monkeypatch.setattr("mmalign_export.quantize.search.resident_mb", lambda *_: None)
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
    # Each of ten layers turns by 0.03. A mean of 0.99, a sixth of what 0.94 loses, is an angle of 0.1415: four of them.
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
