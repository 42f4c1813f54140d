from __future__ import annotations

import numpy as np
import pytest

from mmalign_export.quantization.trial import Speed, cosines, largest_move, open_model, run_all
from tests.export.quantization.tiny_models import OPTIONS, make_trial, turned

FEEDS = {"x": np.array([[1, 0], [0, 2], [-3, 4]], np.float32)}


def test_batches_are_run_one_after_another() -> None:
    session = open_model(turned(0.0).SerializeToString(), ("x",), OPTIONS)
    vectors = run_all(session, [FEEDS, {"x": FEEDS["x"][:1]}])
    np.testing.assert_allclose(vectors, [[1, 0], [0, 1], [-0.6, 0.8], [1, 0]], atol=1e-6)


def test_the_cosine_of_a_turn_is_the_cosine_of_its_angle() -> None:
    left, right = (open_model(turned(angle).SerializeToString(), ("x",), OPTIONS).run(FEEDS) for angle in (0.0, 0.3))
    np.testing.assert_allclose(cosines(right, left), [np.cos(0.3)] * 3, atol=1e-6)
    np.testing.assert_allclose(cosines(5 * right, left), [np.cos(0.3)] * 3, atol=1e-6)


def test_what_depends_on_its_batch_moves_and_the_rest_does_not() -> None:
    moved = {
        moves: largest_move(open_model(turned(0.1, moves=moves).SerializeToString(), ("x",), OPTIONS), FEEDS)
        for moves in (False, True)
    }
    assert moved[False] < 1e-6
    assert moved[True] > 0.1


def test_speedup_is_the_geometric_mean_of_the_ratios() -> None:
    assert Speed(8, 2.0, 5.0).ratio() == 2.5
    assert make_trial("image").speedup() == pytest.approx(2.0)
