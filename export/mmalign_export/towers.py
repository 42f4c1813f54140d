"""The modules that get traced: each tower with its projection and its normalisation, behind one function signature.

The signature is that of every artifact made from them, ONNX and compiled alike:
pixel_values (B, 3, S, S) float32 -> image_embeds (B, D) float32, unit length
input_ids, attention_mask (B, L) int64 -> text_embeds (B, D) float32, unit length
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import torch
from torch import Tensor, nn
from torch.export import Dim

from mmalign.model import DualEncoder
from mmalign_runtime.spec import ImageSpec, TextSpec

TowerFunction: TypeAlias = Callable[..., Tensor]

IMAGE_INPUTS = ("pixel_values",)
IMAGE_OUTPUT = "image_embeds"
TEXT_INPUTS = ("input_ids", "attention_mask")
TEXT_OUTPUT = "text_embeds"

# Traced with sizes that are no special case: not 1, and not each other.
_TRACED_BATCH = 3
_TRACED_TOKENS = 11


class ImageEmbedder(nn.Module):
    """Image tower, projection and normalisation."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return image_embeds (B, D)."""
        return self.model.encode_image(pixel_values)


class TextEmbedder(nn.Module):
    """Text tower, projection and normalisation."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embeds (B, D)."""
        return self.model.encode_text(input_ids, attention_mask)


class TracedTower(msgspec.Struct, frozen=True):
    """A module with what tracing needs: example inputs, which sizes may change, and names."""

    module: nn.Module
    examples: tuple[Tensor, ...]
    dynamic_shapes: tuple[dict[int, Dim], ...]
    input_names: tuple[str, ...]
    output_name: str


def image_tower(model: DualEncoder, spec: ImageSpec) -> TracedTower:
    """Return the image side, its batch dynamic."""
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(_TRACED_BATCH, 3, spec.size, spec.size, generator=generator)
    shapes = ({0: Dim("batch")},)
    return TracedTower(ImageEmbedder(model).eval(), (pixel_values,), shapes, IMAGE_INPUTS, IMAGE_OUTPUT)


def text_tower(model: DualEncoder, spec: TextSpec) -> TracedTower:
    """Return the text side, its batch and its length dynamic."""
    ids = torch.ones(_TRACED_BATCH, _TRACED_TOKENS, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[0, _TRACED_TOKENS // 2 :] = 0  # some padding, so that no trace takes the mask for all ones
    batch, length = Dim("batch"), Dim("length", min=2, max=spec.context_length)
    # The mask follows the ids: naming its axes a second time only makes the exporter warn.
    shapes = ({0: batch, 1: length}, {0: Dim.AUTO, 1: Dim.AUTO})
    return TracedTower(TextEmbedder(model).eval(), (ids, mask), shapes, TEXT_INPUTS, TEXT_OUTPUT)
