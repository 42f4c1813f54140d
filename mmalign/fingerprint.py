"""Stable ids of weights and of embedding spaces: the same for the same values, however a file was saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmalign.model import DualEncoder
from mmalign_runtime.spec import ImageSpec, TextSpec

_ID_LENGTH = 32
_LIMITS = frozenset({"limits", "max_characters"})
# Fields younger than the first ids, and what was done before there were any: what is still done so keeps its id.
_YOUNGER: dict[str, object] = {
    "jpeg_oversampling": 0,
    "resize_size": None,
    "fill": (0, 0, 0),
    "side_rounding": "floor",
    "crop_rounding": "half_even",
    "orientation": "applied",
    "alpha": "composited",
    "cleaning": "none",
    "truncation_side": "right",
    "padding_side": "right",
}


def digest_state(state: Mapping[str, Tensor]) -> str:
    """Return a hex digest over names, dtypes, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_texts(parts: Iterable[str | bytes]) -> str:
    """Return a hex digest over a sequence of texts or bytes; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def space_id(model: DualEncoder, image: ImageSpec, text: TextSpec, tokenizer: Tokenizer) -> str:
    """Return the id of the space that a model's vectors live in: weights, projections, pixels, tokens, all of them.

    The specs' limits are left out: they refuse an item, they move no vector. The scale is left out for the same reason.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "logit_scale"}
    pixels, tokens = (msgspec.json.encode(_without_limits(spec), order="sorted") for spec in (image, text))
    parts = (digest_state(state), pixels, tokens, tokenizer.to_str(), model.text_tower.head())
    return "mma-" + digest_texts(parts)[:_ID_LENGTH]


def _without_limits(spec: ImageSpec | TextSpec) -> dict[str, object]:
    fields = msgspec.structs.asdict(spec)
    if isinstance(spec, ImageSpec) and len(set(spec.shape)) == 1:
        fields["size"] = spec.shape[0]
    left_out = _LIMITS | {name for name, before in _YOUNGER.items() if name in fields and fields[name] == before}
    return {name: value for name, value in fields.items() if name not in left_out}
