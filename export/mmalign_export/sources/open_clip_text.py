"""Text towers of open_clip as modules from ids alone, with what decides whether texts may run at their own length.

Shapes: B batch, L tokens, W width, D embedding.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from mmalign_export.rewrite.attention import write_out_attention
from mmalign_export.rewrite.copies import structural_copy
from mmalign_export.sources.open_clip_tokenizer import OpenClipTokenizer
from mmalign_export.sources.refusals import check_last


class _Parts(Protocol):
    """What a text tower of open_clip consists of: a TextTransformer, or the CLIP that holds its parts."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: nn.Module
    ln_final: nn.Module
    text_projection: Tensor | nn.Linear | None
    attn_mask: Tensor | None


class ClipText(nn.Module):
    """CLIP's text tower, (B, L) int64 -> (B, D): at any length where it is causal, as open_clip's is at one length."""

    def __init__(self, parts: _Parts, pool: str, end_id: int, replaced: tuple[int, int] | None) -> None:
        super().__init__()
        self.token_embedding = parts.token_embedding
        self.positional_embedding = parts.positional_embedding
        self.transformer = parts.transformer
        self.ln_final = parts.ln_final
        self.register_buffer("mask", parts.attn_mask, persistent=False)
        self.pool, self.end_id, self.replaced = pool, end_id, replaced
        projection = parts.text_projection
        self.projection: nn.Module = nn.Identity()
        if isinstance(projection, nn.Linear):
            self.projection = projection
        elif projection is not None:
            width, embed_dim = projection.shape
            self.projection = nn.Linear(width, embed_dim, bias=False)
            self.projection.weight = nn.Parameter(projection.detach().T, requires_grad=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vector of each text. A token's place among the others decides its position."""
        if self.replaced is not None:
            input_ids = torch.where(input_ids == self.replaced[0], self.replaced[1], input_ids)
        length = input_ids.shape[1]
        tokens = self.token_embedding(input_ids) + self.positional_embedding[:length]  # (B, L, W)
        mask = None if self.mask is None else cast("Tensor", self.mask)[:length, :length]
        tokens = self.transformer(tokens, attn_mask=mask)
        return cast("Tensor", self.projection(self.ln_final(self._pooled(tokens, input_ids))))  # (B, D)

    def _pooled(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        """Return one token of each text (B, W); the norm after it is each token's own."""
        if self.pool in ("first", "last"):
            return tokens[:, 0 if self.pool == "first" else -1]
        where = input_ids if self.pool == "argmax" else (input_ids == self.end_id).int()
        return tokens[torch.arange(tokens.shape[0], device=tokens.device), where.argmax(dim=-1)]


class WholeText(nn.Module):
    """A text tower of open_clip as it is, of which ids may be replaced: CoCa's, and those of transformers."""

    def __init__(self, tower: nn.Module, replaced: tuple[int, int] | None) -> None:
        super().__init__()
        self.tower = structural_copy(tower)
        self.tower.output_tokens = False  # type: ignore[assignment]
        self.replaced = replaced

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vector of each text (B, D); the mask is made of the ids."""
        if self.replaced is not None:
            input_ids = torch.where(input_ids == self.replaced[0], self.replaced[1], input_ids)
        return cast("Tensor", self.tower(input_ids))


def text_backbone(module: nn.Module, tokenizer: OpenClipTokenizer) -> nn.Module:
    """Return the text tower of a model of open_clip, ids (B, L) -> vectors (B, D); its tensors are shared."""
    replaced = None if tokenizer.replaced_id is None else (tokenizer.replaced_id, tokenizer.pad_id)
    if _is_whole(module):
        found: nn.Module = WholeText(cast("nn.Module", module.text), replaced)
    else:
        parts = structural_copy(_parts(module))
        found = ClipText(cast("_Parts", parts), _pool(module), _end_id(module), replaced)
    write_out_attention(found)
    return found.eval()


def keeps_vectors_at_real_length(module: nn.Module, tokenizer: OpenClipTokenizer) -> bool:
    """Say whether padding behind a text cannot change its vector, so that it can be left away.

    So it is where tokens look back only and the vector is that of the end, or where the mask is made of the ids.
    """
    if tokenizer.padding_side != "right" or tokenizer.replaced_id is not None:
        return False
    if _is_whole(module):
        return not isinstance(module.text, TextTransformer)  # CoCa's own token stands behind the padding
    if _parts(module).attn_mask is None:
        return False
    pool = _pool(module)
    return pool in ("first", "eos") or (pool == "argmax" and tokenizer.pad_id < tokenizer.end_id)


def check_end(module: nn.Module, tokenizer: OpenClipTokenizer) -> None:
    """Raise SourceError for a tokenizer that ends its texts otherwise than the tower that is read at their end."""
    if _is_whole(module) or (pool := _pool(module)) not in ("argmax", "eos"):
        return
    ids = tokenizer.converted.encode("a").ids
    check_last(ids, max(ids, default=-1) if pool == "argmax" else _end_id(module))


def _is_whole(module: nn.Module) -> bool:
    text = getattr(module, "text", None)
    return text is not None and (not isinstance(text, TextTransformer) or text.cls_emb is not None)


def _parts(module: nn.Module) -> nn.Module:
    return cast("nn.Module", getattr(module, "text", module))


def _pool(module: nn.Module) -> str:
    text = getattr(module, "text", None)
    return cast("str", module.text_pool_type if text is None else text.pool_type)


def _end_id(module: nn.Module) -> int:
    text = getattr(module, "text", None)
    return cast("int", module.text_eos_id if text is None else text.eos_id)
