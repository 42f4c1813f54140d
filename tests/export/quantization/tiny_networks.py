"""Small networks of each kind that ladders are chosen for, with channels that stand out, as trained ones have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from mmalign_export.quantization.activations import Item, image_items, text_items
from mmalign_runtime.spec import TextInputs
from mmalign_runtime.tokenizer import TokenBatch

SIDE, CONTEXT, PAD = 32, 16, 1
_WIDTH = 32


class _Unit(nn.Module):
    """One vector of unit length."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> Tensor:
        found = self.network(values)
        pooled = found if isinstance(found, Tensor) else found.pooler_output
        return nn.functional.normalize(pooled, dim=-1)


class _Block(nn.Module):
    """As ConvNeXt's: a depthwise convolution, a network over channels last, a layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, values: Tensor) -> Tensor:
        last = self.norm(self.depthwise(values).permute(0, 2, 3, 1))  # (B, H, W, C)
        mixed = self.down(nn.functional.gelu(self.up(last))) * self.scale
        return values + mixed.permute(0, 3, 1, 2)


class _Hybrid(nn.Module):
    """A stem that cuts patches, blocks of convolution and products, a mean over places, a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _WIDTH, 4, stride=4)
        self.blocks = nn.Sequential(_Block(_WIDTH), _Block(_WIDTH))
        self.projection = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        return self.projection(self.blocks(self.stem(values)).mean(dim=(2, 3)))


class _LayerScaled(nn.Module):
    """A transformer's layer whose parts are scaled by column, as DINOv2's are."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, 8, stride=8)
        self.up, self.down = nn.Linear(_WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, _WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        tokens = self.patches(values).flatten(2).transpose(1, 2)  # (B, N, D)
        return (tokens + self.down(nn.functional.gelu(self.up(tokens))) * self.scale).mean(dim=1)


def _network(kind: str) -> nn.Module:
    shape = {
        "hidden_size": _WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    if kind == "clip vision":  # QuickGELU
        config = transformers.CLIPVisionConfig(**shape, image_size=SIDE, patch_size=8)
        return transformers.CLIPVisionModel(config)
    if kind == "siglip vision":  # pools by attention, in a head with products of its own
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape, image_size=SIDE, patch_size=8))
    if kind == "siglip text":  # no mask: padding carries data
        config = transformers.SiglipTextConfig(
            **shape, vocab_size=50, max_position_embeddings=CONTEXT, bos_token_id=2, eos_token_id=1, pad_token_id=1
        )
        return transformers.SiglipTextModel(config)
    return _LayerScaled() if kind == "layer scale" else _Hybrid()


def write_network(kind: str, path: Path) -> ModelProto:
    """Write a network of a kind as float32, its weights spread out, and return it."""
    torch.manual_seed(0)
    network = _network(kind).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and "scale" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif parameter.ndim > 1:
                parameter.copy_(1.5 * torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    is_text = kind.endswith("text")
    example = torch.randint(3, 50, (2, CONTEXT)) if is_text else torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        program = torch.onnx.export(
            _Unit(network).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["input_ids" if is_text else "pixel_values"],
            output_names=["embeds"],
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)
    return program.model_proto


def items_for(kind: str, count: int) -> tuple[Item, ...]:
    """Return seeded items: noise, or texts of several lengths padded to the context."""
    rng = np.random.default_rng(1)
    if not kind.endswith("text"):
        return image_items([_picture(rng) for _ in range(count)], "pixel_values")
    lengths = rng.integers(2, CONTEXT, count)
    mask = (np.arange(CONTEXT) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, rng.integers(3, 50, mask.shape), PAD)
    batch = TokenBatch(ids, mask, np.zeros(count, np.bool_))
    return text_items([batch], TextInputs(), is_padded=True)


def _picture(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
