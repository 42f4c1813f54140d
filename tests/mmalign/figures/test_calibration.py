from __future__ import annotations

import numpy as np
import pytest

from mmalign.figures.calibration import ReliabilityBin, calibration


def test_equals_bins_by_hand() -> None:
    generator = np.random.default_rng(0)
    confidence, is_right = generator.random(47), generator.random(47) < 0.4
    found = calibration(confidence, is_right)
    answers = sorted(zip(confidence.tolist(), is_right.tolist(), strict=True))
    sizes = [4, 4, *[3] * 13]  # 47 in fifteen parts
    assert [each.num_queries for each in found.bins] == sizes
    total = 0.0
    for each, size in zip(found.bins, sizes, strict=True):
        mine, answers = answers[:size], answers[size:]
        sure, right = (sum(column) / size for column in zip(*mine, strict=True))
        assert (each.confidence, each.accuracy) == pytest.approx((sure, right))
        total += abs(sum(c - r for c, r in mine))
    assert found.expected_calibration_error == pytest.approx(total / 47)


def test_answers_that_are_as_often_right_as_they_say_have_a_small_error() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.random(200_000)
    assert calibration(confidence, generator.random(200_000) < confidence).expected_calibration_error < 0.01
    too_sure = calibration(np.sqrt(confidence), generator.random(200_000) < confidence)
    assert too_sure.expected_calibration_error == pytest.approx(2 / 3 - 1 / 2, abs=0.01)  # mean of sqrt(u) less of u


def test_few_answers_have_a_bin_each() -> None:
    found = calibration(np.array([0.9, 0.2]), np.array([True, False]))
    assert found.bins == (ReliabilityBin(0.2, 0.0, 1), ReliabilityBin(0.9, 1.0, 1))
    assert found.expected_calibration_error == pytest.approx(0.15)


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no answers, so calibration is not defined"):
        calibration(np.empty(0), np.empty(0, np.bool_))
