"""The modules that get traced: each tower with its projection and its normalisation, behind one function signature.

The signature is that of every artifact made from them, ONNX and compiled alike:
pixel_values (B, 3, S, S) float32 -> image_embeds (B, D) float32, unit length
input_ids, attention_mask (B, L) int64 -> text_embeds (B, D) float32, unit length
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
from torch import Tensor, nn
from torch.export import Dim

from mmalign.model import DualEncoder
from mmalign.traceable import image_example, text_example
from mmalign_runtime.spec import ImageSpec, TextSpec

TowerFunction: TypeAlias = Callable[..., Tensor]

IMAGE_INPUTS = ("pixel_values",)
IMAGE_OUTPUT = "image_embeds"
TEXT_INPUTS = ("input_ids", "attention_mask")
TEXT_OUTPUT = "text_embeds"


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
    example = image_example(spec)
    embedder = ImageEmbedder(model).eval()
    return TracedTower(embedder, example.inputs, example.dynamic_shapes, IMAGE_INPUTS, IMAGE_OUTPUT)


def text_tower(model: DualEncoder, spec: TextSpec) -> TracedTower:
    """Return the text side, its batch and its length dynamic."""
    example = text_example(spec)
    return TracedTower(TextEmbedder(model).eval(), example.inputs, example.dynamic_shapes, TEXT_INPUTS, TEXT_OUTPUT)
