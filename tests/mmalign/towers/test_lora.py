"""Low-rank adapters: what they compute, what learns beside them, how runs with them go on, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from torch import Tensor, nn

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config
from mmalign.distributed import ALONE, World
from mmalign.errors import ConfigError, WeightsError
from mmalign.evaluation import evaluate
from mmalign.evaluation.of_run import _features
from mmalign.model import DualEncoder
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule, StepPlan, build_optimizer
from mmalign.run import Run, RunFolder, create_run, initial_model, join_run, load_run
from mmalign.run.adapted import adapt_towers
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.towers.additions import is_added, learning_names
from mmalign.towers.lora import LoraConfig, add_adapters, check_adapters, merge_adapters
from mmalign.towers.text import TextTower, create_text_tower
from mmalign.towers.vision import create_image_tower
from mmalign.training import train
from mmalign.training.inputs import StepInputs, prepare_steps
from mmalign.training.trainer import Trainer
from tests.mmalign.run_features import features_of, tensors_of
from tests.mmalign.test_distributed import gradients_of, threads, together
from tests.mmalign.training.test_train_run import assert_same_numbers, interrupted_at
from tests.tolerances import CHUNKED_GRADIENT, MERGED, MERGED_VECTORS

MakeConfig = Callable[..., Config]
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
LORA: dict[str, object] = {"text_tower.lora": {"rank": 2}, "optim.text_tower_lr": 0.01}
FROZEN_IMAGES: dict[str, object] = {"image_tower.frozen": True, **LORA}
SIZES = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
GPT2 = {"vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2, "bos_token_id": 2, "eos_token_id": 3}


def bert_tower() -> TextTower:
    torch.manual_seed(0)
    return create_text_tower(transformers.BertConfig(**SIZES), "mean").eval()


def spread_adapters(tower: nn.Module) -> None:
    """Give adapters weights as if they had learned."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if is_added(name):
                parameter.normal_(std=0.3)


def vectors_of(model: DualEncoder) -> Tensor:
    with torch.inference_mode():
        return model.eval().encode_text(IDS, MASK)


def test_a_layer_gives_what_its_weights_and_a_product_of_two_narrow_ones_give() -> None:
    tower = bert_tower()
    add_adapters(tower, LoraConfig(rank=2, alpha=6.0, targets=("query", "output.dense")), "text_tower.lora")
    spread_adapters(tower)
    with_adapters = tower(IDS, MASK)
    state, plain = tower.state_dict(), bert_tower()
    adapted = [name.removesuffix(".lora_A.default.weight") for name in state if name.endswith("lora_A.default.weight")]
    assert len(adapted) == 6  # of two blocks: queries, and what follows attention and the feed-forward network
    with torch.no_grad():
        for name in adapted:
            first, second = (state[f"{name}.lora_{each}.default.weight"] for each in "AB")
            assert first.shape[0] == second.shape[1] == 2
            plain.get_submodule(name).get_parameter("weight").add_(6.0 / 2 * second @ first)
    assert (with_adapters - plain(IDS, MASK)).abs().max() <= MERGED.bound
    assert (with_adapters - bert_tower()(IDS, MASK)).abs().max() > 0.05


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (bert_tower, (IDS, MASK)),
        (lambda: create_text_tower(transformers.GPT2Config(**GPT2), "last"), (IDS, MASK)),
        (lambda: create_image_tower("timm:test_vit"), (torch.rand(2, 3, 160, 160),)),
        (lambda: create_image_tower("timm:test_convnext"), (torch.rand(2, 3, 32, 32),)),
    ],
    ids=["BERT", "GPT-2", "ViT", "ConvNeXt"],
)
def test_merged_they_leave_the_tower_as_it_was_made_with_other_weights(
    make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]
) -> None:
    tower = make().eval()
    names, before = list(tower.state_dict()), tower(*inputs)
    add_adapters(tower, LoraConfig(rank=2), "key")
    check_adapters(tower, inputs, "key")
    assert torch.equal(tower(*inputs), before)
    spread_adapters(tower)
    moved = tower(*inputs)
    merge_adapters(tower)
    assert list(tower.state_dict()) == names
    assert (tower(*inputs) - moved).abs().max() <= MERGED.bound * moved.abs().max()
    assert (moved - before).abs().max() > 10 * MERGED.bound * moved.abs().max()


def test_adapters_and_projections_alone_learn(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(FROZEN_IMAGES)
    train(config, tmp_path / "run")
    first, last = (read_tensors(tmp_path / "run" / f"{name}.safetensors").tensors for name in ("frozen", "last"))
    learned = {name for name in last if name.startswith("text_tower.")}
    assert all(map(is_added, learned))
    assert len(learned) == 2 * 2 * 6  # two matrices for each of six layers of two blocks
    base = initial_model(config).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, base[name.replace(".base_layer", "")]), name
    assert all(last[name].abs().max() > 0 for name in learned if "lora_B" in name)


def test_a_checkpoint_is_read_with_the_vectors_that_training_left(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Trainer] = []
    make = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *given: (trainers.append(self), make(self, *given))[1])
    config = make_config(FROZEN_IMAGES)
    train(config, tmp_path / "run")
    loaded = load_run(tmp_path / "run", "last")
    assert list(loaded.model.state_dict()) == list(initial_model(config).state_dict())
    assert (vectors_of(loaded.model) - vectors_of(trainers[0].model)).abs().max() <= MERGED_VECTORS.bound
    assert (vectors_of(loaded.model) - vectors_of(initial_model(config))).abs().max() > 0.01
    assert "lora" not in str(dual_model(loaded).text.backbone)
    evaluate(tmp_path / "run")


@pytest.mark.parametrize(
    "settings",
    [
        {"text_tower.lora": {"rank": 2, "dropout": 0.3}, "train.chunk_size": 2},
        {"text_tower.frozen_blocks": 1, "average.kind": "ema"},
        {"image_tower.frozen": False, "image_tower.name": "timm:test_vit", "image_tower.lora": {"rank": 2}},
        {"optim.layer_decay": 0.5, "optim.unfreeze_every": 1, "average.kind": "epochs"},
    ],
    ids=["in chunks, dropout", "frozen block, EMA", "both towers", "by depth, epochs"],
)
def test_a_run_that_is_cut_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    if "image_tower.lora" in settings:
        settings = {**settings, "image.size": 160}
    config = make_config({**FROZEN_IMAGES, **settings, "train.checkpoint_minutes": 0})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted_at(4))
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert_same_numbers(tmp_path / "cut", tmp_path / "whole")
    load_run(tmp_path / "cut")


@pytest.mark.parametrize(
    "settings",
    [
        LORA,
        {"text_tower.pooling": "attention", "text_tower.frozen": True},
        {"text_tower.pooling": "attention", **LORA},
    ],
    ids=["adapters", "pool over kept tokens", "both"],
)
def test_what_is_added_learns_in_several_processes_as_in_one(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, object]
) -> None:
    config = make_config({"image_tower.frozen": True, "train.chunk_size": 2, "optim.clip_norm": 0.0, **settings})
    pairs = merged_splits(load_sources(config.data, config.image)).train

    def trainer(world: World) -> Trainer:
        run = create_run(config, tmp_path / f"{world.size}-{world.rank}")
        for module in run.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # threads draw from one generator
        return Trainer(run.model, config, Schedule(len(pairs), 10, epochs=2), world)

    def gradients(trainer: Trainer, inputs: StepInputs, world: World) -> dict[str, Tensor]:
        rows = Sharing(2, world.rank, world.size).rows(10)
        share = msgspec.structs.replace(inputs.text, tensors=tuple(each[rows] for each in tensors_of(inputs.text)))
        found: dict[str, Tensor] = {}
        trainer.optimizer.register_step_pre_hook(lambda *_: found.update(gradients_of(trainer.model)))
        trainer.step(msgspec.structs.replace(inputs, text=share))
        return found

    alone = trainer(ALONE)
    run = Run(RunFolder(tmp_path), config, alone.model, create_run(config, tmp_path / "for its tokenizer").tokenizer)
    inputs = prepare_steps(config, features_of(run, is_training=True), pairs)[StepPlan(0, tuple(range(10)), seed=3)]
    assert isinstance(inputs, StepInputs)
    whole, worlds = gradients(alone, inputs, ALONE), threads(2)
    assert any(is_added(name.removeprefix("text_tower.")) for name in whole)
    trainers = {world: trainer(world) for world in worlds}
    for found in together(worlds, lambda world: gradients(trainers[world], inputs, world)):
        assert found.keys() == whole.keys()
        largest = max(each.abs().max() for each in whole.values())
        assert (
            max((found[name] - wanted).abs().max() for name, wanted in whole.items())
            <= CHUNKED_GRADIENT.bound * largest
        )


def test_frozen_blocks_have_none_and_the_others_learn_at_the_towers_rate(make_config: MakeConfig) -> None:
    config = make_config({**LORA, "text_tower.frozen_blocks": 1, "optim.layer_decay": 0.5})
    model = initial_model(config)
    adapt_towers(model, config)
    learning = list(learning_names(model.text_tower))
    assert {name.split(".")[3] for name in learning} == {"1"}
    rates = {p: group["lr"] for group in build_optimizer(model, config.optim).param_groups for p in group["params"]}
    assert {rates[model.text_tower.get_parameter(name)] for name in learning} == {0.01}


def test_pretrained_weights_and_heads_are_those_of_a_run_without(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = create_run(make_config(), tmp_path / "plain").model.state_dict()
    adapted = create_run(make_config(LORA), tmp_path / "adapted").model.state_dict()
    own = {name.replace(".base_layer", ""): tensor for name, tensor in adapted.items() if not is_added(name)}
    assert own.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in own.items())
    again = create_run(make_config(LORA), tmp_path / "again").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in adapted.items())
    assert join_run(make_config(LORA), tmp_path / "adapted").model.state_dict().keys() == adapted.keys()


class GoesPast(nn.Module):
    """A tower with a block whose second layer is never called: its weights are read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.ModuleDict({"called": nn.Linear(3, 3), "read": nn.Linear(3, 3)})])

    def forward(self, x: Tensor) -> Tensor:
        called, read = self.layer[0]["called"], self.layer[0]["read"]  # type: ignore[index]
        return nn.functional.linear(called(x), read.weight, read.bias)


def test_a_rank_that_no_memory_holds_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^text_tower\.lora\.rank = 10{12} needs more memory .* smaller one\.$"):
        add_adapters(bert_tower(), LoraConfig(rank=10**12), "text_tower.lora")


def test_adapters_that_a_tower_goes_past_are_named() -> None:
    tower = GoesPast()
    add_adapters(tower, LoraConfig(rank=1), "text_tower.lora")
    with pytest.raises(ConfigError, match=r"text_tower\.lora: the tower reads the weights of read itself"):
        check_adapters(tower, (torch.ones(2, 3),), "text_tower.lora")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text_tower.frozen": True}, r"frozen = true lets nothing learn; leave one out - at `text_tower`"),
        (
            {"text_tower.lora": {"rank": 2, "targets": ["c_fc"]}},
            r'targets = \["c_fc"\]; its linear layers are dense',
        ),
        (
            {"text_tower.lora": {"rank": 2, "targets": ["query", "valeu"]}},
            r'targets = \["valeu"\]; its linear layers are',
        ),
        ({"text_tower.lora": {"rank": 2, "targets": []}}, r"targets = \[\]; its linear layers are"),
        ({"text_tower.frozen_blocks": 2}, r'that learn with targets = "auto"; .* lower frozen_blocks'),
        ({"image_tower.lora": {"rank": 2}}, r"image_tower\.lora: .* its linear layers are none"),
        ({"text_tower.lora": {"rank": -1}}, r">= 0"),
    ],
)
def test_what_cannot_have_them_is_refused_before_anything_is_written(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(make_config({**LORA, **settings}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_peft_the_extra_is_named(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"text_tower\.lora needs peft.*pip install 'mmalign\[lora\]'"):
        train(make_config(LORA), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    create_run(make_config(), tmp_path / "plain")


def test_a_peft_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft.py").write_text("from transformers import SomethingGone\n")
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"text_tower\.lora needs peft, .*SomethingGone.*pip install 'mmalign\[lora\]'"
    ):
        add_adapters(bert_tower(), LoraConfig(rank=2), "text_tower.lora")


@pytest.mark.parametrize(
    "settings",
    [
        FROZEN_IMAGES,
        {"image_tower.frozen": True, "text_tower.frozen": True, "text_tower.pooling": "attention"},
        {**FROZEN_IMAGES, "text_tower.pooling": "attention"},
    ],
    ids=["adapters", "pool", "both"],
)
def test_what_evaluation_begins_with_is_in_the_run_where_only_additions_learned(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    config = make_config({**settings, "train.epochs": 1, "optim.projection_lr": 0.05})
    train(config, tmp_path / "run")
    wanted = initial_model(config).eval()
    with monkeypatch.context() as patch:
        patch.setattr("mmalign.evaluation.of_run.initial_model", None)  # the pretrained weights are not here
        evaluate(tmp_path / "run")
        trained, start = _features(load_run(tmp_path / "run"))
    texts = ["a red square", "yellow"]
    tokens = start.model.text.tensors(start.model.text.prepare(texts))
    with torch.inference_mode():
        assert (start.texts.of(texts, "texts") - wanted.text_tower(*tokens)).abs().max() <= MERGED.bound
    assert (trained.texts.of(texts, "texts") - start.texts.of(texts, "texts")).abs().max() > 10 * MERGED.bound


def test_an_image_tower_is_not_taken_from_a_run_of_adapters(make_config: MakeConfig, tmp_path: Path) -> None:
    vit: dict[str, object] = {"image_tower.name": "timm:test_vit", "image.size": 160, "text_tower.frozen": True}
    train(make_config({**vit, "image_tower.lora": {"rank": 1}, "train.epochs": 1}), tmp_path / "run")
    with pytest.raises(WeightsError, match=r'has adapters .* Set image_tower\.name = "import:.*run"'):
        create_run(make_config({**vit, "image_tower.weights": str(tmp_path / "run")}), tmp_path / "next")
