"""nn.MultiheadAttention written out: one linear layer for queries, keys and values, two products, one linear layer.

As torch traces it, it permutes to (L, B, D) and back, and derives shapes and the scale of the scores again in every
layer: 624 operators for the image tower of ViT-B/32, 360 written out. Every product with weights becomes a MatMul of a
constant, which onnxruntime fuses and quantizes. The scale is multiplied into the weights of the queries: exact where
the head's width is a power of four, one rounding of each weight elsewhere. The attention pooling of CLIP's ResNets is
written out for the one token that it returns: open_clip computes the attention of all tokens, and keeps the first.
Shapes: B batch, L tokens, M tokens attended to, D width, H heads.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign_export.errors import ExportError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def structural_copy(module: ModuleT) -> ModuleT:
    """Return a copy of a module whose parameters and buffers are those of the original, not copies of them.

    Replacing its submodules or parameters leaves the original as it is; writing into its tensors does not.
    """
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


class WrittenAttention(nn.Module):
    """Attention of x (B, L, D) to y (B, M, D), mostly x itself; called as nn.MultiheadAttention is, for inference."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
        self.num_heads = attention.num_heads
        scale = torch.ones(3, dtype=weight.dtype)
        scale[0] = attention.head_dim**-0.5
        scale = scale.repeat_interleave(attention.embed_dim)  # (3 D,)
        self.in_proj = scaled_linear(weight, bias, scale)
        self.out_proj = nn.Linear(1, 1, device="meta")  # torch's own class of it is not found by who looks for Linear
        self.out_proj.out_features, self.out_proj.in_features = attention.out_proj.weight.shape
        self.out_proj.weight, self.out_proj.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return the attended tokens (B, L, D). `attn_mask`, (L, M) or (B H, L, M) float, is added to the scores."""
        assert not need_weights, "the weights of attention are not computed apart"
        assert attn_mask is None or attn_mask.is_floating_point(), "a mask is added to the scores"
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[1:])  # (B, H, L, M)
        queries, keys, values = (split_heads(each, self.num_heads) for each in self._project(query, key, value))
        return self.out_proj(attend(queries, keys, values, attn_mask)), None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if query is key is value:
            return cast("Tensor", self.in_proj(query)).chunk(3, dim=-1)
        parts = zip(self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True)
        return tuple(functional.linear(x, *part) for x, part in zip((query, key, value), parts, strict=True))


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Return tokens (B, L, D) as (B, H, L, D / H)."""
    num_items, length, width = tokens.shape
    return tokens.reshape(num_items, length, num_heads, width // num_heads).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return (B, L, D): the values (B, H, M, D / H) by the softmax of scores whose scale is in the queries already."""
    scores = queries @ keys.transpose(-2, -1)  # (B, H, L, M)
    if mask is not None:
        scores = scores + mask
    attended = functional.softmax(scores, dim=-1) @ values  # (B, H, L, D / H)
    return attended.transpose(1, 2).flatten(-2)  # (B, L, D)


def write_out_attention(module: nn.Module) -> int:
    """Replace, in place, every nn.MultiheadAttention below a module, and return how many. Call it on a
    `structural_copy`.

    Those with keys of another width than queries, or with tokens of bias, stay as they are. Raises ExportError where
    the module is itself an nn.MultiheadAttention.
    """
    if isinstance(module, nn.MultiheadAttention):
        raise ExportError("an nn.MultiheadAttention alone cannot be replaced in place: give the module that holds it.")
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.MultiheadAttention) and _is_plain(child)
    ]
    for parent, name, child in found:
        setattr(parent, name, WrittenAttention(child).train(child.training))
    return len(found)


def unfuse_attention(module: nn.Module) -> int:
    """Let timm's attention below a module take its products apart, in place; return how many do.

    torch's fused function derives the scale of the scores from shapes again in every layer where it is traced.
    """
    found = [each for each in module.modules() if hasattr(each, "fused_attn")]
    for each in found:
        each.fused_attn = False  # type: ignore[assignment]
    return len(found)


def scaled_linear(weight: Tensor, bias: Tensor, scale: float | Tensor = 1.0) -> nn.Linear:
    """Return a linear layer of tensors (N, K) and (N,) that exist already, times a scale or one of each output."""
    layer = nn.Linear(1, 1, device="meta")
    layer.out_features, layer.in_features = weight.shape
    column = scale[:, None] if isinstance(scale, Tensor) else scale
    layer.weight = nn.Parameter(weight.detach() * column, requires_grad=False)
    layer.bias = nn.Parameter(bias.detach() * scale, requires_grad=False)
    return layer


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return bool(
        attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.batch_first
        and attention.bias_k is None
        and not attention.add_zero_attn
    )
