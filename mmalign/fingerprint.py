"""Stable ids of weights and of embedding spaces: the same for the same values, however a file was saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
import torch
from torch import Tensor

from mmalign.dual_model import DualModel
from mmalign_runtime.spec import ImageSpec, TextSpec

_ID_LENGTH = 32
_LIMITS = frozenset({"limits", "max_characters"})


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


def space_id(model: DualModel) -> str:
    """Return the id of the space that a model's vectors live in: "mma-" and 32 hexadecimal digits.

    It is made of all that decides a vector: weights, specs, tokenizer, and each tower's `definition`. The specs' limits
    are left out: they refuse an item, they move no vector. Similarity and origin are left out for the same reason.

    Args:
        model: The model; its weights are read, which takes about a second a gigabyte.

    Returns:
        The id. Two models of one id give the same vectors; a bundle and its variants carry it.

    Example:
        >>> space_id(model) == embedder.info().space_id  # doctest: +SKIP
        True
    """
    state: dict[str, Tensor] = {}
    for name, tower in model.towers.items():
        state |= {f"{name}_tower.{key}": tensor for key, tensor in tower.backbone.state_dict().items()}
        state |= {f"{name}_projection.{key}": tensor for key, tensor in tower.projection.state_dict().items()}
    specs = (msgspec.json.encode(_without_limits(each.spec), order="sorted") for each in (model.image, model.text))
    # Of a run only the text tower has a definition, which stood here alone before others could.
    others = [
        f"{name}:{tower.definition}" for name, tower in model.towers.items() if name != "text" and tower.definition
    ]
    tokenizer, text = model.text.tokenizer.to_str(), model.text.definition
    parts: tuple[str | bytes, ...] = (digest_state(state), *specs, tokenizer, text, *others)
    return "mma-" + digest_texts(parts)[:_ID_LENGTH]


def _without_limits(spec: ImageSpec | TextSpec) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(spec)
    if fields.get("jpeg_oversampling") == 0:  # younger than the first ids, which such pixels keep
        del fields["jpeg_oversampling"]
    return {name: value for name, value in fields.items() if name not in _LIMITS}
