"""Two towers, each inside the budget, and together not: vectors on a circle, each tower turned its own way."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mmalign.retrieval import Relevance
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.run import _choose_pair, _Searched
from mmalign_export.quantization.search import Found, GoldenFeeds, Tower
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
def searched() -> _Searched:
    float32 = open_model(turned(0.0).SerializeToString(), ("x",), OPTIONS)
    reference = run_all(float32, [FEEDS])
    towers: dict[Modality, Tower] = {
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
    labels = [(item,) for item in range(8)]
    return _Searched(towers, Relevance(labels, labels), [], {}, {"image": reference, "text": reference}, {}, {})


def test_what_is_inside_together_is_taken_as_it_is(searched: _Searched) -> None:
    offered = {"image": [candidate("image", 3.0, TURN)], "text": [candidate("text", 3.0, TURN)]}
    _choose_pair(searched, offered, BUDGET)  # type: ignore[arg-type]
    assert {kind: found.trial.recipe for kind, found in searched.chosen.items()} == {
        "image": "turned 0.15",
        "text": "turned 0.15",
    }


def test_the_tower_whose_next_candidate_costs_least_steps_back(searched: _Searched) -> None:
    offered = {
        "image": [candidate("image", 3.0, TURN), candidate("image", 2.0, 0.0)],
        "text": [candidate("text", 3.0, -TURN), candidate("text", 2.9, 0.0)],
    }
    _choose_pair(searched, offered, BUDGET)  # type: ignore[arg-type]
    assert searched.chosen["image"].trial.recipe == "turned 0.15"
    assert searched.chosen["text"].trial.recipe == "turned 0.0"


def test_a_tower_without_another_candidate_steps_back_to_float32(searched: _Searched) -> None:
    offered = {"image": [candidate("image", 3.0, TURN)], "text": [candidate("text", 1.2, -TURN)]}
    _choose_pair(searched, offered, BUDGET)  # type: ignore[arg-type]
    assert searched.chosen.keys() == {"image"}
    np.testing.assert_array_equal(searched.pair["text"], searched.towers["text"].reference)


def test_where_nothing_is_offered_nothing_is_chosen(searched: _Searched) -> None:
    _choose_pair(searched, {"image": [], "text": []}, BUDGET)
    assert searched.chosen == {}
