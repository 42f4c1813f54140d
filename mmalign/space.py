"""The id of an embedding space: the same for the same vectors, wherever the model was read from."""

from __future__ import annotations

import msgspec
from torch import Tensor

from mmalign.dual_model import DualModel
from mmalign.fingerprint import digest_state, digest_texts
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
    fields = msgspec.structs.asdict(spec)
    if isinstance(spec, ImageSpec) and len(set(spec.shape)) == 1:
        fields["size"] = spec.shape[0]
    left_out = _LIMITS | {name for name, before in _YOUNGER.items() if name in fields and fields[name] == before}
    return {name: value for name, value in fields.items() if name not in left_out}
