"""Every architecture that training takes without tracing it first is exported here, and compared with eager PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import Tensor, nn

from mmalign.dual_model import ModelTower
from mmalign.model import DualEncoder, ModelConfig
from mmalign.run.model import image_model_tower, text_model_tower
from mmalign.towers.text import TextTower, create_text_tower
from mmalign.towers.text_checks import check_text_spec, check_text_tower
from mmalign.towers.traceable import TRACED_IMAGE, TRACED_TEXT, check_traceable
from mmalign.towers.vision import ImageTower, create_image_tower
from mmalign_export.errors import ExportError
from mmalign_export.to_onnx import export_onnx
from mmalign_runtime.spec import ImageSpec, TextSpec
from tests.make_tiny_bundle import tiny_tokenizer
from tests.tolerances import ONNX_TOWERS

TOKENIZER = tiny_tokenizer()
CONTEXT = 20  # of 22 positions: RoBERTa's and MPNet's begin at 2
TEXT = TextSpec(context_length=CONTEXT)
IMAGE = ImageSpec(size=160)
SIZES: dict[str, Any] = {
    "vocab_size": TOKENIZER.get_vocab_size(),
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT + 2,
}
# Where layers share what they hold, or differ: a second one of the others is traced as the first is.
TWO: dict[str, Any] = {**SIZES, "num_hidden_layers": 2}
_ENDS = {"bos_token_id": 2, "eos_token_id": 3}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
_GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": CONTEXT}
_DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
VOCAB = {"vocab_size": SIZES["vocab_size"]}

CONFIGS: dict[str, transformers.PretrainedConfig] = {
    config.model_type: config
    for config in (
        transformers.AlbertConfig(**TWO, embedding_size=16),
        transformers.BertConfig(**SIZES),
        transformers.CamembertConfig(**SIZES, pad_token_id=0),
        transformers.CLIPTextConfig(**SIZES, **_ENDS),
        transformers.DebertaV2Config(**TWO, **_DEBERTA, share_att_key=True, position_biased_input=False),
        transformers.DistilBertConfig(**VOCAB, dim=32, n_layers=1, n_heads=2, hidden_dim=48),
        transformers.ElectraConfig(**SIZES, embedding_size=16),
        transformers.GPT2Config(**VOCAB, **_GPT2, **_ENDS),
        transformers.LlamaConfig(**SIZES),
        transformers.ModernBertConfig(**TWO, **_ENDS, pad_token_id=0, cls_token_id=2, sep_token_id=3),
        transformers.MPNetConfig(**TWO, pad_token_id=1),
        transformers.NomicBertConfig(**SIZES),
        transformers.Qwen2Config(**SIZES, num_key_value_heads=2),
        transformers.RobertaConfig(**SIZES, pad_token_id=0),
        transformers.T5Config(**VOCAB, **_T5),
        transformers.XLMRobertaConfig(**SIZES, pad_token_id=0),
    )
}
BACKBONES = {
    "convnext": "timm:test_convnext",
    "efficientnet": "timm:test_efficientnet",
    "resnet": "timm:test_resnet",
    "vision_transformer": "timm:test_vit",
}


def model_of(text: TextTower, name: str = "timm:test_resnet") -> DualEncoder:
    return DualEncoder(create_image_tower(name), text, ModelConfig(embed_dim=8)).eval()


def largest_difference(tower: ModelTower, path: Path, batches: list[tuple[Tensor, ...]]) -> float:
    """Export a tower and return how far onnxruntime is from eager PyTorch over some batches."""
    export_onnx(tower, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for inputs in batches:
        feed = dict(zip(tower.input_names, (tensor.numpy() for tensor in inputs), strict=True))
        with torch.no_grad():
            expected = tower.module(*inputs).numpy()
        differences.append(np.abs(session.run(None, feed)[0] - expected).max())
    return float(max(differences))


def test_what_is_not_traced_before_training_is_what_is_exported_here() -> None:
    assert CONFIGS.keys() == TRACED_TEXT
    assert BACKBONES.keys() == TRACED_IMAGE


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_text_tower_is_exported_at_every_length(model_type: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = create_text_tower(CONFIGS[model_type], "auto").eval()
    check_text_spec(TEXT, TOKENIZER, text)
    check_text_tower(text, TOKENIZER, TEXT)
    generator = torch.Generator().manual_seed(0)
    batches: list[tuple[Tensor, ...]] = []
    for batch, length in ((1, 1), (1, CONTEXT), (3, 2), (3, 7), (3, CONTEXT)):
        ids = torch.randint(4, SIZES["vocab_size"], (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[1:2, length // 2 :] = 0
        batches.append((ids * mask, mask))
    tower = text_model_tower(model_of(text), TEXT, TOKENIZER, model_type)
    assert largest_difference(tower, tmp_path / "text.onnx", batches) <= ONNX_TOWERS.bound


@pytest.mark.parametrize("family", sorted(BACKBONES))
def test_image_tower_is_exported_for_every_batch(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = model_of(create_text_tower(CONFIGS["bert"], "mean"), BACKBONES[family])
    assert type(model.image_tower.backbone).__module__.endswith(f".{family}")
    batches: list[tuple[Tensor, ...]] = [(torch.randn(batch, 3, IMAGE.size, IMAGE.size),) for batch in (1, 3)]
    tower = image_model_tower(model, IMAGE, "test")
    assert largest_difference(tower, tmp_path / "image.onnx", batches) <= ONNX_TOWERS.bound


@pytest.mark.parametrize("context_length", [3, 4, 10])
def test_context_shorter_than_the_traced_example_is_exported(context_length: int, tmp_path: Path) -> None:
    spec = TextSpec(context_length=context_length)
    ids = torch.full((2, context_length), 5)
    tower = text_model_tower(model_of(create_text_tower(CONFIGS["bert"], "mean")), spec, TOKENIZER, "bert")
    batches: list[tuple[Tensor, ...]] = [(ids, torch.ones_like(ids)), (ids[:1, :2], torch.ones(1, 2).long())]
    assert largest_difference(tower, tmp_path / "text.onnx", batches) <= ONNX_TOWERS.bound


class Untraceable(nn.Module):
    """A backbone whose work depends on what it sees, as a tower's must not."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        times = int((pixel_values > 0).sum())
        return torch.cat([pixel_values.mean(dim=(2, 3))] * (1 + times % 2))


def test_tower_that_cannot_be_traced_is_an_export_error_that_leaves_nothing(tmp_path: Path) -> None:
    model = model_of(create_text_tower(CONFIGS["bert"], "mean"))
    model.image_tower.backbone = Untraceable()
    with pytest.raises(ExportError, match=r"tower of image_embeds cannot be written as ONNX: .*another tower\.$"):
        export_onnx(image_model_tower(model, IMAGE, "test"), tmp_path / "image.onnx")
    assert list(tmp_path.iterdir()) == []


def test_architecture_that_is_not_known_is_traced_before_training() -> None:
    text = create_text_tower(transformers.ErnieConfig(**SIZES), "mean")
    check_traceable(ImageTower(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3), text, IMAGE, TEXT)
    assert text.training
