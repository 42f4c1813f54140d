"""Texts of open_clip: its tokenizers as a tokenizer.json, and its text towers as modules from ids alone.

Beside them: what tokenizers do before and after (cleaning, length, padding), and what decides whether texts may run at
their own length. SimpleTokenizer (CLIP's) is written anew from its vocabulary and merges. Its ids are equal to
open_clip's on every text of characters that are assigned in Unicode; `regex` and tokenizers may classify a newer one
differently.
Shapes: B batch, L tokens, W width, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

import msgspec
import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from open_clip.transformer import TextTransformer
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from mmalign_export.errors import SourceError
from mmalign_export.rewrite.attention import structural_copy, write_out_attention
from mmalign_export.sources.open_clip_place import OpenClipPlace, part
from mmalign_export.sources.refusals import check_last, first_sentence
from mmalign_runtime.spec import Cleaning

# SimpleTokenizer's own, with what `regex` makes of it: U+0345 is neither a letter nor anything else where case is
# ignored, so that it is dropped.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
_END_OF_WORD = "</w>"
_CLEANING: dict[str, Cleaning] = {"lower": "clip", "whitespace": "clip_cased", "canonicalize": "clip_canonical"}
# What open_clip's tokenizers draw at random, or lay out in a way that no tokenizer.json says.
_REFUSED = {"reduction_mask": "drops tokens at random", "language": "begins texts with the token of a language"}


class OpenClipTokenizer(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer of open_clip: `original` as it is, `converted` without cleaning, truncation and padding.

    `end_id` closes every text. `replaced_id` is taken for `pad_id` before the tower sees it, where there is one.
    """

    original: SimpleTokenizer | HFTokenizer
    converted: Tokenizer
    cleaning: Cleaning
    context_length: int
    pad_id: int
    pad_token: str
    end_id: int
    replaced_id: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"


def read_tokenizer(place: OpenClipPlace) -> OpenClipTokenizer:
    """Return the tokenizer that open_clip's configuration names. Raises SourceError."""
    text = part(place.model, "text_cfg")
    options = dict(part(text, "tokenizer_kwargs")) if text.get("tokenizer_kwargs") else {}
    for name, why in _REFUSED.items():
        if options.get(name):
            raise SourceError(f"the tokenizer of {place.name} {why} ({name}={options[name]!r}), which is not imported.")
    if mode := text.get("tokenizer_mode"):
        raise SourceError(f"the tokenizer of {place.name} has tokenizer_mode={mode!r}; none is known here.")
    length = int(cast("int", text.get("context_length", DEFAULT_CONTEXT_LENGTH)))
    if text.get("hf_tokenizer_name"):
        return _of_transformers(place, length, options)
    cleaning = _cleaning(options, "lower")
    try:
        original = SimpleTokenizer(context_length=length, **options)
    except (TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"open_clip's tokenizer does not take {options} of {place.name}: {first_sentence(error)}. Correct "
            "tokenizer_kwargs in its text_cfg."
        ) from error
    return OpenClipTokenizer(
        original=original,
        converted=clip_tokenizer(original),
        cleaning=cleaning,
        context_length=length,
        pad_id=0,
        pad_token=original.decoder[0],
        end_id=original.eot_token_id,
    )


def clip_tokenizer(original: SimpleTokenizer) -> Tokenizer:
    """Return SimpleTokenizer as a tokenizer.json: it gives the same ids for texts that are cleaned already."""
    found = Tokenizer(
        models.BPE(vocab=original.encoder, merges=list(original.bpe_ranks), end_of_word_suffix=_END_OF_WORD)
    )
    words = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    special = [original.decoder[number] for number in original.all_special_ids]
    found.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    start, end = original.sot_token_id, original.eot_token_id
    found.post_processor = processors.TemplateProcessing(
        single=f"{original.decoder[start]} $A {original.decoder[end]}",
        special_tokens=[(original.decoder[start], start), (original.decoder[end], end)],
    )
    return found


def _of_transformers(place: OpenClipPlace, length: int, options: dict[str, object]) -> OpenClipTokenizer:
    cleaning = _cleaning(options, "whitespace")
    try:
        original = HFTokenizer(place.tokenizer, context_length=length, trust_remote_code=False, **options)
    except Exception as error:  # tokenizers raises Exception itself
        raise SourceError(
            f"the tokenizer of {place.name} cannot be read at {Path(place.tokenizer).name}: {first_sentence(error)}. "
            "Put its files (tokenizer.json, tokenizer_config.json) beside the weights."
        ) from error
    inner = original.tokenizer
    if not inner.is_fast or inner.pad_token_id is None:
        raise SourceError(
            f"the tokenizer of {place.name} ({type(inner).__name__}) has no tokenizer.json or no padding token. Save "
            "its fast form beside the weights."
        )
    end = inner.eos_token_id if inner.sep_token_id is None else inner.sep_token_id
    return OpenClipTokenizer(
        original=original,
        converted=Tokenizer.from_str(inner.backend_tokenizer.to_str()),
        cleaning=cleaning,
        context_length=length,
        pad_id=inner.pad_token_id,
        pad_token=inner.pad_token,
        end_id=-1 if end is None else end,
        replaced_id=inner.sep_token_id if original.strip_sep_token else None,
        padding_side=inner.padding_side,
        truncation_side=inner.truncation_side,
    )


def _cleaning(options: dict[str, object], usual: str) -> Cleaning:
    name = str(options.get("clean", usual))
    if name not in _CLEANING:
        raise SourceError(f"open_clip's tokenizer has clean={name!r}; expected one of {', '.join(_CLEANING)}.")
    return _CLEANING[name]


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
