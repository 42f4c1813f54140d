from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.augment import ImageAugment
from mmalign.config import Config
from mmalign.pairs import load_splits
from mmalign.run import Run, create_run
from tests.mmalign.run_towers import towers_of

Start = Callable[[dict[str, object]], Run]


@pytest.fixture
def start(make_config: Callable[..., Config], tmp_path: Path) -> Start:
    """Return a function that starts a run with some settings."""
    return lambda settings: create_run(make_config(settings), tmp_path / "run")


def num_cached(run: Run) -> int:
    return len(list(Path(run.config.train.cache_dir).glob("*.npy")))


def test_frozen_towers_are_kept_and_learning_ones_are_not(start: Start) -> None:
    run = start({"image_tower.frozen": True})
    towers, pairs = towers_of(run, is_training=True), load_splits(run.config.data).val
    towers.text_features(["a red square"], "test")
    assert num_cached(run) == 0
    towers.image_features(pairs, "test")
    towers.image_features(pairs, "again")
    assert num_cached(run) == 1


def test_in_evaluation_every_tower_is_kept(start: Start) -> None:
    run = start({})
    towers_of(run, is_training=False).text_features(["a red square"], "test")
    assert num_cached(run) == 1


def test_a_tower_that_changed_is_computed_again(start: Start) -> None:
    run = start({"text_tower.frozen": True})
    before = towers_of(run, is_training=True).text_features(["a red square"], "test")
    with torch.no_grad():
        next(run.model.text_tower.parameters()).mul_(2)
    after = towers_of(run, is_training=True).text_features(["a red square"], "test")
    assert num_cached(run) == 2
    assert not torch.equal(before, after)


def test_views_are_kept_by_number_and_settings(start: Start) -> None:
    run = start({"image_tower.frozen": True})
    towers, pairs = towers_of(run, is_training=True), load_splits(run.config.data).val
    augment = ImageAugment(run.config.augment, run.config.image)
    first, second = (towers.view_features(pairs, augment, view) for view in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(towers.view_features(pairs, augment, 1), first)
    assert num_cached(run) == 2
