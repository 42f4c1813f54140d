from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.config import Config
from mmalign.feed import feed_steps
from mmalign.inputs import StepInputs
from mmalign.pairs import load_splits
from mmalign.run import create_run
from mmalign.schedule import StepPlan
from tests.mmalign.run_towers import towers_of
from tests.tolerances import FEATURES

FirstStep = Callable[[dict[str, object]], StepInputs]


@pytest.fixture
def first_step(make_config: Callable[..., Config], tmp_path: Path) -> FirstStep:
    """Return a function that gives the inputs of one step under some settings, and always the first caption."""

    def step(settings: dict[str, object]) -> StepInputs:
        config = make_config({"augment.first_caption": 1.0, **settings})
        run = create_run(config, tmp_path / "run")
        steps = feed_steps(config, towers_of(run, is_training=True), load_splits(config.data).train)
        inputs = steps[StepPlan(0, (3, 0, 7), seed=0)]
        assert isinstance(inputs, StepInputs)
        return inputs

    return step


def test_towers_that_learn_are_fed_pixels_and_tokens(first_step: FirstStep) -> None:
    inputs = first_step({})
    assert inputs.image.shape == (3, 3, 32, 32)
    assert [tensor.shape[0] for tensor in inputs.text] == [3, 3]


def test_frozen_towers_are_fed_the_features_of_the_pairs_asked_for(
    first_step: FirstStep, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    inputs = first_step({"image_tower.frozen": True, "text_tower.frozen": True})
    run = create_run(make_config({"image_tower.frozen": True, "text_tower.frozen": True}), tmp_path / "again")
    pairs = [load_splits(run.config.data).train[row] for row in (3, 0, 7)]
    towers = towers_of(run, is_training=False)
    assert torch.allclose(inputs.image, towers.image_features(pairs, "test"), atol=FEATURES.bound)
    (text,) = inputs.text
    expected = towers.text_features([pair.captions[0] for pair in pairs], "test")
    assert torch.allclose(text, expected, atol=FEATURES.bound)


@pytest.mark.parametrize("num_views", [0, 2])
def test_views_are_cached_beside_the_clean_images(first_step: FirstStep, tmp_path: Path, num_views: int) -> None:
    first_step({"image_tower.frozen": True, "train.num_views": num_views})
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1 + num_views
