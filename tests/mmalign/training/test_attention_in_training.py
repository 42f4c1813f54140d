"""The attention in a run: regions from the cache or from a tower that learns, cut and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.optim import StepPlan
from mmalign.run import create_run, load_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import decode_pair, load_sources, merged_splits
from mmalign.towers.regions import features_and_regions, image_tower_with_regions
from mmalign.training import train
from mmalign.training.inputs import Features, StepInputs, prepare_steps
from mmalign.training.metrics import read_metrics
from mmalign.training.trainer import Trainer
from tests.mmalign.run_features import features_of
from tests.tolerances import FEATURES, Tolerance

MakeConfig = Callable[..., Config]
ON: dict[str, object] = {"model.attention": {"weight": 1.0}, "image.size": 64}  # four regions
FROZEN: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True, "train.num_views": 1}
KEPT_IN_HALVES = Tolerance(1e-3, "relative to the largest: float16 keeps eleven bits; another image is far off")


@pytest.mark.parametrize("settings", [FROZEN, {}, {"train.chunk_size": 2}], ids=["cached", "learning", "in chunks"])
def test_a_run_that_is_cut_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    config = make_config({**ON, **settings, "train.checkpoint_minutes": 0})
    train(config, tmp_path / "whole")
    take_step = Trainer.step

    def stop_at_three(self: Trainer, inputs: StepInputs) -> object:
        if inputs.plan.step == 3:
            raise KeyboardInterrupt
        return take_step(self, inputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", stop_at_three)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()
    one, other = (read_tensors(tmp_path / run / "last.safetensors").tensors for run in ("cut", "whole"))
    assert any(name.startswith("attention.") for name in one)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_everything_about_it_learns_and_is_read_back(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config({**ON, **FROZEN})
    first = create_run(config, tmp_path / "unused").model.attention
    train(config, tmp_path / "run")
    found = load_run(tmp_path / "run", "last").model.attention
    assert first is not None
    assert found is not None
    learned, before = found.state_dict(), first.state_dict()
    assert [name for name in before if torch.equal(before[name], learned[name])] == []


def test_without_it_a_run_has_the_numbers_and_tensors_that_it_had(make_config: MakeConfig, tmp_path: Path) -> None:
    """The first loss of the vectors is the same with it: it draws its weights last, and adds to the loss."""
    losses = []
    for name, weight in (("off", 0.0), ("on", 1.0), ("tiny", 1e-9)):
        settings = {**FROZEN, "image.size": 64, "model.attention": {"weight": weight}}
        train(make_config(settings), tmp_path / name)
        losses.append(float(read_metrics(tmp_path / name / "metrics.csv")[0]["loss"]))
    tensors = read_tensors(tmp_path / "off/best.safetensors").tensors
    assert not any(name.startswith("attention.") for name in tensors)
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[1] > losses[0] + 0.1


def test_a_step_is_fed_the_regions_of_its_images_and_views(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config({**ON, **FROZEN})
    run = create_run(config, tmp_path / "run")
    pairs = merged_splits(load_sources(config.data, config.image)).train
    steps = prepare_steps(config, features_of(run, is_training=True), pairs)
    inputs = steps[StepPlan(0, (1, 4, 0, 2), 11)]
    assert isinstance(inputs, StepInputs)
    assert isinstance(inputs.image, Features)
    assert inputs.image.regions is not None
    tower = dual_model(run).image
    with torch.inference_mode():
        for row, values, regions in zip(inputs.plan.rows, inputs.image.values, inputs.image.regions, strict=True):
            pixels = torch.from_numpy(tower.preprocess(decode_pair(pairs[row], tower.spec, row)))
            own, expected = features_and_regions(image_tower_with_regions(run.model.image_tower.eval()), pixels)
            is_clean = (own[0] - values).abs().max() <= FEATURES.bound  # else it is the augmented view, of both
            moved = (expected[0] - regions.float()).abs().max() / expected.abs().max()
            assert (moved <= KEPT_IN_HALVES.bound) == is_clean


def test_regions_are_computed_once_and_again_when_damaged(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config({**ON, **FROZEN})
    train(config, tmp_path / "first")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")}
    train(config, tmp_path / "second")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")} == kept
    regions = [path for path in kept if np.load(path, mmap_mode="r").dtype == np.float16]
    assert len(regions) == 2  # the clean images, and a view of each
    content = bytearray(regions[0].read_bytes())
    content[-100] ^= 1
    regions[0].write_bytes(content)
    train(config, tmp_path / "third")
    assert "what it keeps is computed again" in caplog.text
    assert (tmp_path / "third/metrics.csv").read_text() == (tmp_path / "first/metrics.csv").read_text()


def test_regions_that_cannot_be_kept_are_an_error_that_says_how_much_room_they_take(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    config = make_config({**ON, **FROZEN, "train.cache_dir": str(tmp_path / "file")})
    with pytest.raises(ConfigError, match=r"the regions of \d+ images take \d+ MB"):
        train(config, tmp_path / "run")
