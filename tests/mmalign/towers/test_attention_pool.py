"""Pooling by attention in a run: over kept tokens of a frozen tower, and in a tower that learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.evaluation import evaluate
from mmalign.features import PooledTextFeatures
from mmalign.features.token_states import PoolOfTower, TokenStates
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule, StepPlan, build_optimizer
from mmalign.run import create_run, initial_model, load_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.towers.pooling import Pooling
from mmalign.towers.sentence_modules import SentenceModules
from mmalign.towers.text import TextTower, TextTowerConfig
from mmalign.towers.text_checks import check_sentence_modules
from mmalign.training import train
from mmalign.training.inputs import StepInputs, prepare_steps
from mmalign.training.sides import TokenInputs
from mmalign.training.trainer import Trainer
from mmalign_runtime.spec import TextSpec
from tests.mmalign.run_features import features_of
from tests.mmalign.training.test_train_run import assert_same_numbers, interrupted_at
from tests.tolerances import KEPT_TOKENS

MakeConfig = Callable[..., Config]
POOL: dict[str, object] = {"text_tower.pooling": "attention", "image_tower.frozen": True, "optim.projection_lr": 0.05}
FROZEN: dict[str, object] = {**POOL, "text_tower.frozen": True}
TEXTS = ["a red square", "the picture of a blue bar", "yellow", "a green frame"]
NAME = "text_tower.pool.query"
POOLINGS: tuple[Pooling, ...] = ("mean", "cls")


def text_tower_of(config: Config) -> TextTower:
    tower = initial_model(config).text_tower
    assert isinstance(tower, TextTower)
    return tower


def test_texts_are_cut_out_of_all_tokens_and_padded_as_the_longest_of_the_batch() -> None:
    values = torch.arange(12, dtype=torch.float16).reshape(6, 2)
    tokens = TokenStates(values, torch.tensor([3, 0, 2]), torch.tensor([3, 2, 1]))
    hidden, mask = tokens.padded([2, 0, 1], Sharing(1, 0, 3).rows(3))
    assert (hidden.shape, mask.tolist()) == ((1, 3, 2), [[1, 0, 0]])
    assert hidden[0, 0].tolist() == [4.0, 5.0]
    hidden, mask = tokens.padded([2, 0, 1], slice(1, 3))
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert hidden[0].flatten().tolist() == [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    assert hidden[1, :2].flatten().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_features_from_kept_tokens_are_the_towers_and_follow_the_pool(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config(FROZEN), tmp_path / "run")
    texts, spy = features_of(run, is_training=True).texts, features_of(run, is_training=True).texts
    assert isinstance(texts, PooledTextFeatures)
    found = []
    for value in (0.0, 0.7):
        with torch.no_grad():
            run.model.state_dict()[NAME].fill_(0.0)[:16] = value
        exact = features_of(run, is_training=False).texts.of(TEXTS, "texts")
        found.append(texts.of(TEXTS, "texts"))
        assert (found[-1] - exact).abs().max() <= KEPT_TOKENS.bound * exact.abs().max()
    assert (found[0] - found[1]).abs().max() > 0.01
    run.model.text_tower.encoder.forward = None  # type: ignore[union-attr, method-assign, assignment]
    assert torch.equal(spy.of(TEXTS, "texts"), found[1])  # from the cache: the encoder is not called


def test_the_query_and_the_projections_alone_learn_over_a_frozen_tower(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(FROZEN)
    train(config, tmp_path / "run")
    last = read_tensors(tmp_path / "run/last.safetensors").tensors
    assert [name for name in last if name.startswith("text_tower.")] == [NAME]
    assert last[NAME].abs().max() > 0.01
    frozen = read_tensors(tmp_path / "run/frozen.safetensors").tensors
    before = initial_model(config).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.items())
    assert {name for name in before if name.startswith("text_tower.encoder.")} <= frozen.keys()
    loaded = load_run(tmp_path / "run", "last").model.state_dict()
    assert torch.equal(loaded[NAME], last[NAME])
    evaluate(tmp_path / "run")


def test_a_step_takes_kept_tokens_and_the_loss_of_the_tower_itself(make_config: MakeConfig, tmp_path: Path) -> None:
    """The first loss is that of mean pooling, which the pool begins as."""
    losses = []
    for pooling in ("attention", "mean"):
        config = make_config({**FROZEN, "text_tower.pooling": pooling})
        run = create_run(config, tmp_path / pooling)
        pairs = merged_splits(load_sources(config.data, config.image)).train
        inputs = prepare_steps(config, features_of(run, is_training=True), pairs)[StepPlan(0, (1, 4, 0, 2), 11)]
        assert isinstance(inputs, StepInputs)
        assert isinstance(inputs.text, TokenInputs) == (pooling == "attention")
        losses.append(Trainer(run.model, config, Schedule(len(pairs), 4, 1)).step(inputs).loss)
    assert losses[0] == pytest.approx(losses[1], rel=KEPT_TOKENS.bound)


@pytest.mark.parametrize(
    "settings",
    [
        FROZEN,
        {**FROZEN, "train.chunk_size": 2, "average.kind": "ema"},
        POOL,
        {**POOL, "text_tower.lora": {"rank": 2}},
    ],
    ids=["frozen", "frozen, in chunks, EMA", "learning", "adapters"],
)
def test_a_run_that_is_cut_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    config = make_config({**settings, "train.checkpoint_minutes": 0})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted_at(4))
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert_same_numbers(tmp_path / "cut", tmp_path / "whole")
    assert load_run(tmp_path / "cut").model.state_dict()[NAME].abs().max() > 0


def test_gradients_in_chunks_are_those_of_the_whole(make_config: MakeConfig) -> None:
    torch.manual_seed(0)
    tower = text_tower_of(make_config(FROZEN))
    hidden, mask = torch.randn(5, 4, 32), torch.tensor([[1] * n + [0] * (4 - n) for n in (4, 1, 3, 2, 4)])
    whole = PoolOfTower(tower)(hidden, mask)
    parts = torch.cat([PoolOfTower(tower)(hidden[rows], mask[rows]) for rows in (slice(0, 2), slice(2, 5))])
    found: list[Tensor] = []
    for features in (whole, parts):
        (gradient,) = torch.autograd.grad(features.square().sum(), [tower.state_dict(keep_vars=True)["pool.query"]])
        found.append(gradient)
    assert (found[0] - found[1]).abs().max() <= 1e-6 * found[0].abs().max()


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_the_pool_learns_at_the_rate_of_projections(make_config: MakeConfig, decay: float) -> None:
    config = make_config({**POOL, "optim.layer_decay": decay, "optim.unfreeze_every": 1})
    model = initial_model(config)
    groups = build_optimizer(model, config.optim).param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == sum(each.requires_grad for each in model.parameters())
    query = model.get_parameter(NAME)
    assert [group["lr"] for group in groups if any(query is each for each in group["params"])] == [0.05]


def test_a_model_that_was_trained_with_the_mean_may_go_on_with_attention() -> None:
    config = TextTowerConfig(name="somewhere", pooling="attention")
    modules = {pooling: SentenceModules(pooling=pooling) for pooling in POOLINGS}
    check_sentence_modules(modules["mean"], config, TextSpec())
    with pytest.raises(ConfigError, match=r"pooling is 'attention', and .* was trained with 'cls'"):
        check_sentence_modules(modules["cls"], config, TextSpec())


def test_tokens_that_cannot_be_kept_are_an_error_with_what_to_do(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the token vectors of 12 texts take .* or text_tower\.pooling = 'mean'"):
        train(make_config({**FROZEN, "train.cache_dir": str(tmp_path / "file/cache")}), tmp_path / "run")
