from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from mmalign.checkpoints.checkpoint import Progress, save_best
from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, differing_keys
from mmalign.errors import CheckpointError, ConfigError
from mmalign.run import Run, create_run, initial_model, load_run
from mmalign.run.model import dual_model
from mmalign.space import space_id

MakeConfig = Callable[..., Config]
FROZEN = {"image_tower.frozen": True, "text_tower.frozen": True}
OLD_MODEL = """[model]
embed_dim = 16
projection = "mlp"
standardize_features = true
image_dropout = 0.5
text_dropout = 0.25
temperature = 0.125
learn_temperature = true
max_logit_scale = 100.0
"""
FILES = {"config.toml", "frozen.safetensors", "text_encoder.json", "tokenizer.json"}


def finished(config: Config, folder: Path) -> Run:
    """Make a run with a best checkpoint that differs from the start."""
    run = create_run(config, folder)
    with torch.no_grad():
        for parameter in run.model.image_projection.parameters():
            parameter.mul_(2)
    save_best(folder / "best.safetensors", run.model, Progress())
    return run


@pytest.mark.parametrize("settings", [{}, FROZEN, {"image_tower.frozen": True}])
def test_run_comes_back_as_the_same_space(make_config: MakeConfig, tmp_path: Path, settings: dict[str, object]) -> None:
    run = finished(make_config(settings), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert loaded.config == run.config
    assert not loaded.model.training
    first, second = (space_id(dual_model(each)) for each in (run, loaded))
    assert first == second


def test_a_run_that_wrote_its_keys_where_they_were_before_is_the_same_space(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    head = {"kind": "mlp", "standardize_features": True}
    heads = {"model.image_head": {**head, "dropout": 0.5}, "model.text_head": {**head, "dropout": 0.25}}
    run = finished(make_config({**heads, "loss.temperature": 0.125}), tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    written = path.read_text()
    model, after = written.index("[model]"), written.index("[augment]")
    path.write_text(f"{written[:model]}{OLD_MODEL}\n{written[after:]}")
    loaded = load_run(tmp_path / "run")
    assert loaded.config == run.config
    assert space_id(dual_model(loaded)) == space_id(dual_model(run))
    assert dual_model(loaded).similarity == dual_model(run).similarity
    names = {"image_projection.0.running_mean", "image_projection.2.weight", "image_projection.5.weight", "logit_scale"}
    assert names <= read_tensors(tmp_path / "run" / "best.safetensors").tensors.keys()


def test_initial_model_is_the_same_for_the_same_seed(make_config: MakeConfig) -> None:
    first, same = (initial_model(make_config()).state_dict() for _ in range(2))
    other = initial_model(make_config({"train.seed": 1})).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["image_projection.0.weight"], other["image_projection.0.weight"])


def test_folder_holds_all_that_is_needed_and_no_place_of_this_machine(make_config: MakeConfig, tmp_path: Path) -> None:
    create_run(make_config(), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    encoder = json.loads((tmp_path / "run" / "text_encoder.json").read_text())
    assert encoder["model_type"] == "bert"
    assert not any(str(tmp_path.parent) in str(value) for value in encoder.values())


def test_a_run_is_not_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds a run already\. Add --resume"):
        create_run(make_config(), tmp_path)


def test_what_a_killed_start_left_is_cleared(make_config: MakeConfig, tmp_path: Path) -> None:
    finished(make_config(), tmp_path)
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    create_run(make_config({"model.embed_dim": 8}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text.context_length": 99}, "context_length is 99"),
        ({"text.pad_token": "<pad>"}, "pad_token '<pad>'"),
        ({"text.context_length": 2}, "context_length is 2, and the tokenizer adds 2 tokens"),
        ({"image_tower.name": "timm:vit_tiny_patch16_224"}, "does not take images of 32 x 32 pixels"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_before_anything_is_written(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        create_run(make_config(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file_is_named(make_config: MakeConfig, tmp_path: Path, name: str) -> None:
    finished(make_config(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["text_encoder.json", "tokenizer.json", "frozen.safetensors", "best.safetensors"])
def test_damaged_file_is_named(make_config: MakeConfig, tmp_path: Path, name: str) -> None:
    finished(make_config(), tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_run(tmp_path)


def test_folder_that_is_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run: .*mmalign train CONFIG --out"):
        load_run(tmp_path)


def test_run_without_its_best_checkpoint_says_what_to_do(make_config: MakeConfig, tmp_path: Path) -> None:
    create_run(make_config(), tmp_path)
    with pytest.raises(CheckpointError, match=r"best\.safetensors is missing: .*--resume`\."):
        load_run(tmp_path)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"best\.safetensors is missing: .*or take --checkpoint last"):
        load_run(tmp_path)


def test_binding_the_tokenizer_leaves_the_run_s_own_as_it_was(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config(), tmp_path)
    before = run.tokenizer.to_str()
    assert dual_model(run).text.bound_tokenizer.encode(["a red square"]).input_ids.shape == (1, 5)
    assert run.tokenizer.to_str() == before == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).to_str()


def write_sentence_model(folder: Path, encoder: Path) -> Path:
    """Make a sentence-transformers folder: max pooling, a dense layer, 12 tokens at most."""
    shutil.copytree(encoder, folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    listing = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(listing))
    for path, config in {
        "1_Pooling": {"pooling_mode": "max"},
        "2_Dense": {"in_features": 32, "out_features": 7, "activation_function": "torch.nn.modules.linear.Identity"},
    }.items():
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    return folder


def test_run_records_what_a_sentence_model_is_and_comes_back(
    make_config: MakeConfig, text_encoder_dir: Path, tmp_path: Path
) -> None:
    name = str(write_sentence_model(tmp_path / "model", text_encoder_dir))
    config = make_config({"text_tower.name": name, "text_tower.pooling": "auto"})
    run = finished(config, tmp_path / "run")
    shutil.rmtree(name)
    loaded = load_run(tmp_path / "run")
    assert loaded.config.text_tower.pooling == run.config.text_tower.pooling == "max"
    assert loaded.model.text_tower.dense_layers == run.model.text_tower.dense_layers
    assert loaded.model.text_tower.feature_dim == 7
    tokens = torch.tensor([[2, 7, 9, 3]])
    with torch.no_grad():
        first, second = (each.model.eval().encode_text(tokens, torch.ones_like(tokens)) for each in (run, loaded))
    assert torch.equal(first, second)
    assert differing_keys(loaded.config, config) == []  # --resume with the same file goes on


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_tower.pooling": "mean"}, "pooling is 'mean', and the sentence-transformers model .* with 'max'"),
        ({"text_tower.pooling": "auto", "text.context_length": 13}, "reads 12 tokens at most"),
    ],
)
def test_configuration_that_contradicts_a_sentence_model_is_refused(
    make_config: MakeConfig, text_encoder_dir: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    name = str(write_sentence_model(tmp_path / "model", text_encoder_dir))
    with pytest.raises(ConfigError, match=message):
        create_run(make_config(settings | {"text_tower.name": name}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tower_that_cannot_be_traced_is_refused_before_anything_is_written(
    make_config: MakeConfig, text_encoder_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(text_encoder_dir, tmp_path / "longformer")
    sizes = json.loads((folder / "config.json").read_text())
    sizes |= {"model_type": "longformer", "attention_window": 4, "pad_token_id": 0, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(ConfigError, match=r"'longformer', which torch\.export cannot trace.*never exported"):
        create_run(make_config({"text_tower.name": str(folder)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
