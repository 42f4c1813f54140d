from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.config import Config
from mmalign.errors import TrainingError
from mmalign.pairs import load_splits
from mmalign.pool import build_pool
from mmalign.retrieval import recall_both_ways
from mmalign.run import Run, create_run
from mmalign.validate import Validator
from mmalign_runtime.errors import ItemError
from tests.mmalign.run_towers import towers_of

MakeConfig = Callable[..., Config]


def validator_of(run: Run) -> Validator:
    pairs = load_splits(run.config.data).val
    return Validator(run.model, run.config.evaluate, pairs, towers_of(run, is_training=True))


@pytest.mark.parametrize("settings", [{}, {"image_tower.frozen": True, "text_tower.frozen": True}])
def test_scores_are_the_recalls_of_the_model(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, object]
) -> None:
    run = create_run(make_config(settings), tmp_path / "run")
    val = validator_of(run).validate()
    pool = build_pool(load_splits(run.config.data).val, "all")
    towers = towers_of(run, is_training=False)
    with torch.inference_mode():
        images = run.model.project_image(towers.image_features(pool.pairs, "val"))
        texts = run.model.project_text(towers.text_features(pool.texts, "val"))
    to_text, to_image = recall_both_ways(images, texts, pool.relevant)
    assert (val.image_to_text_at_1, val.text_to_image_at_1) == (to_text.at_1, to_image.at_1)
    assert val.score == pytest.approx((sum(to_text.shares()) + sum(to_image.shares())) / 6)


def test_validation_sees_a_tower_as_it_learns(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config({"text_tower.frozen": True}), tmp_path / "run")
    validator = validator_of(run)
    before = validator.validate()
    with torch.no_grad():
        for parameter in run.model.image_tower.parameters():
            parameter.zero_()
    after = validator.validate()  # all images are alike now: ties rank behind
    assert after.score < before.score


def test_a_model_that_is_not_finite_stops_training(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config(), tmp_path / "run")
    validator = validator_of(run)
    with torch.no_grad():
        run.model.image_projection.get_parameter("0.weight")[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite, so the model is not saved"):
        validator.validate()


def test_damaged_validation_image_of_a_frozen_tower_is_found_at_once(
    make_config: MakeConfig, tmp_path: Path, pairs_csv: Path
) -> None:
    for path in pairs_csv.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = {"path": str(tmp_path / "pairs.csv"), "concept_column": "concept"}
    config = make_config({"data.sources": [source], "image_tower.frozen": True})
    run = create_run(config, tmp_path / "run")
    damaged = load_splits(config.data).val[0].image
    assert isinstance(damaged, Path)
    damaged.write_bytes(b"")
    with pytest.raises(ItemError, match=damaged.name.replace(".", r"\.")):
        validator_of(run)
