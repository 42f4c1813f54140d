"""What the inputs and outputs of a tower's graph are, told from their names, types and ranks.

Shapes: B batch, L tokens, D embedding, H and W image sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mmalign_export.errors import SourceError
from mmalign_runtime.spec import Modality

# What libraries call the vector; a pooler's output is one of SigLIP alone, whose model has no projection behind it.
_NAMED: dict[Modality, tuple[str, ...]] = {
    "image": ("image_embeds", "sentence_embedding", "embedding"),
    "text": ("text_embeds", "sentence_embedding", "embedding"),
}
_POOLER = "pooler_output"
_DTYPES: dict[ir.DataType | None, type[np.generic]] = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
}


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """Return what has to be given; old files list their weights among the inputs."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def roles_of(path: Path, model: ir.Model, kind: Modality) -> dict[str, str]:
    """Return the bundle's names of the inputs, by the file's. The first one is the item itself."""
    inputs = inputs_of(model)
    shown = ", ".join(f"{value.name} {value.shape}" for value in inputs)
    if kind == "image":
        if len(inputs) == 1 and inputs[0].dtype == ir.DataType.FLOAT and inputs[0].shape and len(inputs[0].shape) == 4:
            return {str(inputs[0].name): "pixel_values"}
        raise SourceError(
            f"{path} takes {shown}; expected pixels alone, one float32 input (B, 3, H, W). A graph of both towers is "
            "not read: take the files of each tower."
        )
    found: dict[str, str] = {}
    for value in inputs:
        name = str(value.name)
        if value.dtype not in (ir.DataType.INT32, ir.DataType.INT64) or value.shape is None or len(value.shape) != 2:
            raise SourceError(
                f"{path} takes {shown}; expected token ids (B, L) and, where it has them, a mask and token types. A "
                "graph of both towers is not read: take the files of each tower."
            )
        role = "attention_mask" if "mask" in name else "token_type_ids" if "type" in name else "input_ids"
        found[name] = role
    by_role = sorted(found, key=lambda name: ("input_ids", "attention_mask", "token_type_ids").index(found[name]))
    if sorted(set(found.values())) != sorted(found.values()) or "input_ids" not in found.values():
        raise SourceError(f"{path} takes {shown}; expected one input of token ids, a mask and token types at most.")
    return {name: found[name] for name in by_role}


def check_sides(path: Path, values: Mapping[str, ir.Value], names: Mapping[str, str], sides: tuple[int, ...]) -> None:
    """Raise SourceError for inputs of other sides than the configuration makes."""
    for name in names:
        declared = list(values[name].shape or ())[1:]
        wrong = [side for side, wanted in zip(declared, sides, strict=True) if isinstance(side, int) and side != wanted]
        if wrong:
            raise SourceError(
                f"{path}: its input {name} takes {declared}, and the configuration beside it makes {list(sides)}. They "
                "are not of one model: fetch both again."
            )


def dtype_of(path: Path, value: ir.Value) -> type[np.generic]:
    """Return NumPy's type of an input whose role is known."""
    assert value.dtype in _DTYPES, f"{path}: types were looked at with the roles"
    return _DTYPES[value.dtype]


def vector_of(path: Path, model: ir.Model, kind: Modality, *, has_pooler: bool) -> str:
    """Return the name of the output that is the vector. Raises SourceError where none is told from the others."""
    outputs = {str(value.name): value for value in model.graph.outputs}
    named = (*_NAMED[kind], *((_POOLER,) if has_pooler else ()))
    flat = [name for name, value in outputs.items() if value.shape is not None and len(value.shape) == 2]
    others = [name for name in flat if name != _POOLER]
    found = next((name for name in named if name in outputs), others[0] if len(others) == 1 else None)
    if found is None:
        shown = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
        raise SourceError(
            f"{path} gives {shown}; expected one vector an item, (B, D), behind the model's projection: "
            f"{' or '.join(_NAMED[kind])}. Export the model with its projection."
        )
    if outputs[found].dtype not in (ir.DataType.FLOAT, None):
        raise SourceError(f"{path}: its output {found} is of type {outputs[found].dtype}; expected float32.")
    return found
