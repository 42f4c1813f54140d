"""One file of a pair as a tower: which of its inputs are what, which output is the vector, which batches it takes.

Inputs and outputs are told from their names, types and ranks. Each file is tried in onnxruntime, as it is, before
anything of the graph is changed.
Shapes: B batch, L tokens, D embedding, H and W image sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from mmalign.dual_model import Arrays, Vectors
from mmalign_export.errors import SourceError
from mmalign_export.rewrite.onnx_batch import loop_over_batch
from mmalign_export.rewrite.onnx_interface import divide_by_length, keep_output, name_inputs
from mmalign_export.sources.refusals import check_alive, first_sentence
from mmalign_export.to_onnx import ONNXRUNTIME_ERRORS, OnnxBackbone, open_session
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

# A graph that onnxruntime runs need not be one that the standard allows.
_WRITING_ERRORS = (*ONNXRUNTIME_ERRORS, cast("type[Exception]", onnx.checker.ValidationError))
_TRIED_BATCH = 3
_SAME = 1e-3


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


class OnnxTower(msgspec.Struct, frozen=True, kw_only=True):
    """A file, loaded: `names` are the bundle's names of its inputs by its own, `output` is the vector (B, `embed_dim`).

    `is_batched` says whether it takes more than one item; if not, each item runs alone.
    """

    path: Path
    session: onnxruntime.InferenceSession
    names: dict[str, str]
    dtypes: dict[str, type[np.generic]]
    output: str
    embed_dim: int
    is_batched: bool

    def run(self, arrays: Arrays, output: str = "") -> Vectors:
        """Return vectors (B, D) of the bundle's arrays, which the file's own inputs are made of. Raises SourceError."""
        rows = len(next(iter(arrays.values())))
        step = rows if self.is_batched else 1
        feeds = [{name: each[at : at + step] for name, each in arrays.items()} for at in range(0, rows, step)]
        return np.concatenate([_run(self, feed, output or self.output) for feed in feeds])


def open_tower(path: Path, model: ir.Model, kind: Modality, sides: tuple[int, ...], *, has_pooler: bool) -> OnnxTower:
    """Return a file as the tower of a modality, whose items have these sides: (3, H, W), or (L,).

    Raises SourceError for inputs and outputs that are not a tower's, and where onnxruntime does not run the file.
    """
    names = roles_of(path, model, kind)
    values = {str(value.name): value for value in inputs_of(model)}
    check_sides(path, values, names, sides)
    try:
        session = open_session(path)
    except ONNXRUNTIME_ERRORS as error:
        raise SourceError(
            f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__}: {first_sentence(error)}. Fetch it "
            "again, or export the model again."
        ) from error
    tower = OnnxTower(
        path=path,
        session=session,
        names=names,
        dtypes={name: dtype_of(path, value) for name, value in values.items()},
        output=vector_of(path, model, kind, has_pooler=has_pooler),
        embed_dim=0,
        is_batched=True,
    )
    batch = _leading(values[next(iter(names))])
    if isinstance(batch, int) and batch != 1:
        raise SourceError(
            f"{path} was exported for batches of {batch}; expected any batch, or one item. Export it with a dynamic "
            "batch (dynamic_axes)."
        )
    examples = _examples(names, sides)
    alone = [
        _run(tower, {name: array[at : at + 1] for name, array in examples.items()}, tower.output) for at in range(3)
    ]
    if alone[0].ndim != 2 or len(alone[0]) != 1:
        raise SourceError(
            f"{path}: its output {tower.output} has the shape {alone[0].shape} for one item; expected (1, D), one "
            "vector. The pooled output of the model with its projection is needed."
        )
    check_alive(str(path), np.concatenate(alone))
    is_batched = batch != 1 and _takes_batch(tower, examples, np.concatenate(alone))
    return msgspec.structs.replace(tower, embed_dim=alone[0].shape[1], is_batched=is_batched)


def to_backbone(tower: OnnxTower, model: ir.Model, output_name: str, sides: tuple[int | str, ...]) -> OnnxBackbone:
    """Change a graph, in place, to that of a bundle's tower, and return what runs it. Raises SourceError.

    `sides` are an item's, by a name where items differ in one.
    """
    keep_output(model, tower.output, tower.embed_dim)
    if not tower.is_batched:
        for value in model.graph.inputs:
            value.shape = ir.Shape([1, *sides])
        loop_over_batch(model)
    name_inputs(model, tower.names)
    divide_by_length(model, output_name)
    try:
        return OnnxBackbone(model)
    except _WRITING_ERRORS as error:
        raise SourceError(
            f"{tower.path}: its graph cannot be given a bundle's inputs and outputs: {first_sentence(error)}. Export "
            "the model again, with a dynamic batch."
        ) from error


def _leading(value: ir.Value) -> int | str | None:
    first = next(iter(value.shape or (None,)))
    return first if isinstance(first, int) else str(first)


def _examples(names: Mapping[str, str], sides: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    """Return three items that differ, by the bundle's names."""
    drawn = np.random.default_rng(0)
    roles = tuple(names.values())
    if "pixel_values" in roles:
        return {"pixel_values": drawn.standard_normal((_TRIED_BATCH, *sides)).astype(np.float32)}
    ids = np.arange(_TRIED_BATCH * sides[0], dtype=np.int64).reshape(_TRIED_BATCH, -1) % 97
    made: dict[str, NDArray[np.generic]] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {role: each for role, each in made.items() if role in roles}


def _takes_batch(tower: OnnxTower, examples: Arrays, alone: Vectors) -> bool:
    """Say whether three items together come out as each by itself: some files only declare that they do."""
    try:
        together = _run(tower, examples, tower.output)
    except SourceError:
        return False
    return together.shape == alone.shape and bool(np.abs(together - alone).max() <= _SAME * np.abs(alone).max())


def _run(tower: OnnxTower, arrays: Arrays, output: str) -> Vectors:
    ids = arrays.get("input_ids")
    types = {} if ids is None else {"token_type_ids": np.zeros_like(ids)}
    given = {**types, **arrays}
    feeds = {name: given[role].astype(tower.dtypes[name]) for name, role in tower.names.items()}
    try:
        found: Vectors = tower.session.run([output], feeds)[0]
    except ONNXRUNTIME_ERRORS as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise SourceError(
            f"{tower.path} cannot be run on {shapes}: {first_sentence(error)}. Export it again."
        ) from error
    return found
