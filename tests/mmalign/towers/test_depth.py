"""Layers of towers by depth: which are found, which stay as they are, which learn more slowly and which later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from mmalign.config import Config
from mmalign.errors import ConfigError
from mmalign.model import DualEncoder
from mmalign.optim import OptimConfig, build_optimizer
from mmalign.run import initial_model, load_run
from mmalign.towers.depth import Modes, Unfreezing, freeze_first_blocks, layers_of
from mmalign.training import train
from mmalign.training.trainer import Trainer
from mmalign_runtime.errors import MmalignError
from tests.mmalign.training.test_train_run import assert_same_numbers, interrupted_at

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., DualEncoder]


def names_of(tower: nn.Module, parameters: tuple[nn.Parameter, ...]) -> set[str]:
    names = {parameter: name for name, parameter in tower.named_parameters()}
    return {names[parameter] for parameter in parameters}


@pytest.mark.parametrize(
    ("make", "num_blocks", "in_stem", "in_last"),
    [
        (lambda: torchvision.models.resnet50(), 16, "conv1.weight", "fc.weight"),
        (lambda: timm.create_model("vit_small_patch16_224"), 12, "pos_embed", "norm.weight"),
        (lambda: timm.create_model("tf_efficientnet_lite0"), 16, "conv_stem.weight", "conv_head.weight"),
        (lambda: timm.create_model("convnext_nano"), 17, "stem.0.weight", "head.norm.weight"),
        (lambda: timm.create_model("mixer_s16_224"), 8, "stem.proj.weight", "norm.weight"),
        (lambda: transformers.BertModel(transformers.BertConfig()), 12, "embeddings.word_embeddings.weight", ""),
        (lambda: transformers.GPT2Model(transformers.GPT2Config()), 12, "wte.weight", "ln_f.weight"),
        (
            lambda: transformers.T5EncoderModel(transformers.T5Config()),
            *(6, "shared.weight", "encoder.final_layer_norm.weight"),
        ),
        (lambda: transformers.ModernBertModel(transformers.ModernBertConfig()), 22, "embeddings.norm.weight", ""),
    ],
)
def test_blocks_of_many_libraries_are_found(
    make: Callable[[], nn.Module], num_blocks: int, in_stem: str, in_last: str
) -> None:
    with torch.device("meta"):
        tower = make()
    layers = layers_of(tower, "a key")
    assert len(layers.blocks) == num_blocks
    assert in_stem in names_of(tower, layers.stem)
    assert not in_last or in_last in names_of(tower, layers.last)
    assert sum(map(len, layers.by_depth)) == len(list(tower.parameters()))
    assert len(layers.by_depth) == num_blocks + 1


def test_a_tower_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.layer_decay needs the blocks of a tower, and this one names none"):
        layers_of(nn.Linear(2, 2), "optim.layer_decay")


def test_more_blocks_than_there_are_is_an_error(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(MmalignError, match=r"text_tower\.frozen_blocks is 3, and the tower has 2 blocks\. Set that or"):
        train(make_config({"text_tower.frozen_blocks": 3}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_frozen_blocks_stay_as_they_are_with_their_statistics(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config({"image_tower.frozen_blocks": 2, "text_tower.frozen_blocks": 1})
    before = initial_model(config).state_dict()
    train(config, tmp_path)
    changed = moved(before, load_run(tmp_path, "last").model.state_dict())
    first = ("image_tower.backbone.conv1.", "image_tower.backbone.bn1.", "image_tower.backbone.layer1.")
    texts = ("text_tower.encoder.embeddings.", "text_tower.encoder.encoder.layer.0.")
    still = (*first, "image_tower.backbone.layer2.", *texts)
    assert not {name for name in changed if name.startswith(still)}
    assert {name for name in changed if name.startswith("image_tower.backbone.layer3.")} >= {
        "image_tower.backbone.layer3.0.bn1.running_mean",
        "image_tower.backbone.layer3.0.conv1.weight",
    }
    assert any(name.startswith("text_tower.encoder.encoder.layer.1.") for name in changed)


def test_what_stands_still_has_no_dropout() -> None:
    tower = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Dropout())
    tower[1].requires_grad_(False)
    modes = Modes(tower, [tower])
    modes.apply(set())
    assert [module.training for module in tower.modules()] == [True, True, False, False, False, True]
    modes.apply(set(tower[0].parameters()))
    assert not any(module.training for module in tower.modules())
    modes.apply(set())
    assert [module.training for module in tower.modules()] == [True, True, False, False, False, True]


def test_modes_are_those_of_training_again_after_an_evaluation_in_between() -> None:
    tower = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    head = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    tower.requires_grad_(False)
    modes = Modes(model := nn.Sequential(tower, head), [tower])
    for _ in range(2):
        modes.apply(set())
        assert [each.training for each in model.modules()] == [True, False, False, False, True, True, True]
        model.eval()


def test_rates_fall_by_a_factor_a_block(make_config: MakeConfig) -> None:
    config = make_config({"optim.layer_decay": 0.5, "optim.text_tower_lr": 1.0, "optim.image_tower_lr": 2.0})
    model = initial_model(config)
    rate_of = {
        parameter: group["lr"]
        for group in build_optimizer(model, config.optim).param_groups
        for parameter in group["params"]
    }
    named = {name: rate_of[parameter] for name, parameter in model.named_parameters()}
    assert len(rate_of) == len(named)
    assert named["text_tower.encoder.embeddings.word_embeddings.weight"] == 0.25
    assert named["text_tower.encoder.encoder.layer.0.output.dense.bias"] == 0.5
    assert named["text_tower.encoder.encoder.layer.1.output.dense.weight"] == 1.0
    assert named["image_tower.backbone.layer4.0.conv1.weight"] == 2.0
    assert named["image_tower.backbone.layer1.0.conv1.weight"] == 0.25
    assert named["image_projection.0.weight"] == config.optim.projection_lr


def test_without_a_decay_a_tower_needs_no_blocks(make_model: MakeModel) -> None:
    model = make_model()
    groups = build_optimizer(model, OptimConfig()).param_groups
    assert {parameter for group in groups for parameter in group["params"]} == set(model.parameters())


def test_blocks_learn_one_after_the_other(make_config: MakeConfig, tmp_path: Path) -> None:
    """Three steps an epoch, and a further layer every second epoch: none in the first two, the stem after six."""
    settings = {"text_tower.frozen": True, "optim.unfreeze_every": 2}
    before = initial_model(make_config(settings)).state_dict()

    def learned_in(epochs: int) -> set[str]:
        folder = tmp_path / str(epochs)
        train(make_config({**settings, "train.epochs": epochs, "optim.warmup": 0.0}), folder)
        changed = moved(before, load_run(folder, "last").model.state_dict())
        return {name.split(".")[2] for name in changed if name.startswith("image_tower.")}

    with pytest.raises(ConfigError, match=r"optim\.unfreeze_every would not be read: .* no block of a tower learns"):
        learned_in(2)
    assert learned_in(4) == {"layer4"}
    assert learned_in(6) == {"layer4", "layer3"}
    assert learned_in(11) == {"layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}


def test_what_waits_is_named_by_epoch(make_config: MakeConfig) -> None:
    tower = initial_model(make_config()).text_tower
    layers = layers_of(tower, "a key").by_depth
    counts = [len(Unfreezing([tower], every=3).waiting(epoch)) for epoch in (0, 2, 3, 6, 9, 30)]
    sizes = [len(layer) for layer in layers]
    assert counts == [sum(sizes), sum(sizes), sum(sizes[:2]), sizes[0], 0, 0]
    assert Unfreezing([tower], every=0).waiting(0) == set()


def test_half_a_tower_that_learns_by_depth_and_by_time_resumes_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"image_tower.frozen_blocks": 1, "optim.layer_decay": 0.8, "optim.unfreeze_every": 1, "train.epochs": 4}
    config = make_config({**settings, "train.checkpoint_minutes": 0})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted_at(5))
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert_same_numbers(tmp_path / "cut", tmp_path / "whole")


def test_frozen_blocks_have_no_gradients() -> None:
    tower = timm.create_model("test_vit", num_classes=0)
    freeze_first_blocks(tower, 2, "a key")
    learning = {name for name, each in tower.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in learning if name.startswith("blocks.")} == {"2", "3", "4", "5"}
    assert "pos_embed" not in learning
    assert "norm.weight" in learning
