from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch.nn import functional

from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.run import create_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.closed_form import start_from_linear_map
from tests.mmalign.run_features import features_of
from tests.tolerances import START_COSINE

MakeConfig = Callable[..., Config]
HEAD = {"standardize_features": True}
SETTINGS: dict[str, object] = {
    **{"image_tower.frozen": True, "text_tower.frozen": True, "model.start": "linear_map", "model.embed_dim": 32},
    **{"model.image_head": HEAD, "model.text_head": {"kind": "residual", **HEAD}},
}


def test_heads_begin_with_the_cosines_of_a_ridge_regression(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(SETTINGS)
    run, splits = create_run(config, tmp_path), merged_splits(load_sources(config.data))
    features = features_of(run, is_training=True)
    start_from_linear_map(run.model, features, splits, config.evaluate)
    images = features.images.of(splits.train, "training")  # (N, F)
    texts = features.texts.of([pair.captions[0] for pair in splits.train], "captions")  # (N, G)
    x, y = ((each - each.mean(0)) / (each.var(0) + 1e-5).sqrt() for each in (images.double(), texts.double()))
    unit_x, unit_y = functional.normalize(x, dim=1), functional.normalize(y, dim=1)
    centred, target = unit_x - unit_x.mean(0), unit_y - unit_y.mean(0)
    covariance = centred.T @ centred
    run.model.eval()
    found = run.model.project_image(images) @ run.model.project_text(texts).T
    differences = []
    for strength in (10.0**exponent for exponent in range(-4, 4)):  # those that fit_linear_map tries
        ridge = strength * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        predicted = x @ torch.linalg.solve(covariance + ridge, centred.T @ target)  # (N, G)
        wanted = functional.cosine_similarity(predicted[:, None], y[None], dim=2)
        differences.append((found - wanted).abs().max().item())
    assert min(differences) <= START_COSINE.bound


def test_weights_are_as_large_as_random_ones(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(SETTINGS)
    run = create_run(config, tmp_path)
    weight = run.model.image_projection.get_parameter("1.weight")
    before = weight.norm().item()
    start_from_linear_map(
        run.model, features_of(run, is_training=True), merged_splits(load_sources(config.data)), config.evaluate
    )
    assert weight.norm().item() == pytest.approx(before, rel=START_COSINE.bound)


def test_a_space_wider_than_the_map_has_directions_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the text tower has features, 32, and model\.embed_dim is 33: the components"
    ):
        train(make_config({**SETTINGS, "model.embed_dim": 33}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_captions_that_are_all_the_same_give_no_map(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(SETTINGS)
    run, splits = create_run(config, tmp_path), merged_splits(load_sources(config.data))
    alike = tuple(msgspec.structs.replace(pair, captions=("a red bar",)) for pair in splits.train)
    with pytest.raises(ConfigError, match=r"no linear map to begin with: .* set model\.start = \"random\""):
        start_from_linear_map(
            run.model,
            features_of(run, is_training=True),
            msgspec.structs.replace(splits, train=alike),
            config.evaluate,
        )


@pytest.mark.parametrize("head", [{"kind": "mlp", **HEAD}, {"kind": "linear"}])
def test_heads_that_cannot_begin_so_are_refused(make_config: MakeConfig, head: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r'start "linear_map" needs heads of kind "linear" or "residual".*text_head'):
        make_config({**SETTINGS, "model.text_head": head})
