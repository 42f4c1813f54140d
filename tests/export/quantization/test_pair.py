"""Two towers, each inside the budget, and together not: vectors on a circle, each tower turned its own way."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mmalign.figures.retrieval import Relevance
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.search import Found, GoldenFeeds, Tower
from mmalign_export.quantization.tower_search import PairOfTowers, choose_pair
from mmalign_export.quantization.trial import Speed, open_model, run_all
from mmalign_runtime.spec import Modality
from tests.export.quantization.tiny_models import OPTIONS, RECALL, make_trial, turned

# Neighbours are 0.4 apart, so that an image finds its text while they are turned by less than 0.2 against each other.
ANGLES = 0.4 * np.arange(8)
FEEDS = {"x": np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)}
TURN = 0.15
BUDGET = Budget({1: 0.5})


def candidate(tower: Modality, speed: float, angle: float) -> Found:
    trial = msgspec.structs.replace(make_trial(tower, f"turned {angle}"), speeds=(Speed(1, 1 / speed, 1.0),))
    return Found(trial, turned(angle).SerializeToString())


@pytest.fixture
def towers() -> dict[Modality, Tower]:
    float32 = open_model(turned(0.0).SerializeToString(), ("x",), OPTIONS)
    reference = run_all(float32, [FEEDS])
    return {
        kind: Tower(
            kind=kind,
            input_names=("x",),
            batches=(FEEDS,),
            timed=(FEEDS,),
            scanned=FEEDS,
            float32=float32,
            reference=reference,
            golden=GoldenFeeds(("circle",), (FEEDS,), reference),
            recalls=lambda vectors: (RECALL, RECALL),
            options=OPTIONS,
        )
        for kind in ("image", "text")
    }


def chosen(towers: dict[Modality, Tower], offered: dict[Modality, list[Found]]) -> PairOfTowers:
    labels = [(item,) for item in range(8)]
    float32 = {kind: tower.reference for kind, tower in towers.items()}
    return choose_pair(towers, offered, float32, Relevance(labels, labels), BUDGET)


def test_what_is_inside_together_is_taken_as_it_is(towers: dict[Modality, Tower]) -> None:
    offered: dict[Modality, list[Found]] = {
        "image": [candidate("image", 3.0, TURN)],
        "text": [candidate("text", 3.0, TURN)],
    }
    pair = chosen(towers, offered)
    assert {kind: found.trial.recipe for kind, found in pair.chosen.items()} == {
        "image": "turned 0.15",
        "text": "turned 0.15",
    }


def test_the_tower_whose_next_candidate_costs_least_steps_back(towers: dict[Modality, Tower]) -> None:
    offered: dict[Modality, list[Found]] = {
        "image": [candidate("image", 3.0, TURN), candidate("image", 2.0, 0.0)],
        "text": [candidate("text", 3.0, -TURN), candidate("text", 2.9, 0.0)],
    }
    pair = chosen(towers, offered)
    assert pair.chosen["image"].trial.recipe == "turned 0.15"
    assert pair.chosen["text"].trial.recipe == "turned 0.0"


def test_a_tower_without_another_candidate_steps_back_to_float32(towers: dict[Modality, Tower]) -> None:
    offered: dict[Modality, list[Found]] = {
        "image": [candidate("image", 3.0, TURN)],
        "text": [candidate("text", 1.2, -TURN)],
    }
    pair = chosen(towers, offered)
    assert pair.chosen.keys() == {"image"}
    np.testing.assert_array_equal(pair.vectors["text"], towers["text"].reference)


def test_where_nothing_is_offered_nothing_is_chosen(towers: dict[Modality, Tower]) -> None:
    pair = chosen(towers, {"image": [], "text": []})
    assert pair.chosen == {}


def test_without_recall_the_fastest_of_each_is_taken(towers: dict[Modality, Tower]) -> None:
    float32 = {kind: tower.reference for kind, tower in towers.items()}
    offered = {"image": [candidate("image", 3.0, TURN)], "text": [candidate("text", 3.0, -TURN)]}
    pair = choose_pair(towers, offered, float32, None, BUDGET)  # type: ignore[arg-type]
    assert pair.recalls() is None
    assert pair.chosen.keys() == {"image", "text"}
