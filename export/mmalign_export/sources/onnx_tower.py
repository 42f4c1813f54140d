"""One file of a pair as a tower: which of its inputs are what, which output is the vector, which batches it takes.

Each is tried in onnxruntime, on the file as it is, before anything of the graph is changed.
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

from mmalign_export.errors import SourceError
from mmalign_export.onnx_backbone import ONNXRUNTIME_ERRORS, OnnxBackbone, open_session
from mmalign_export.rewrite.onnx_batch import loop_over_batch
from mmalign_export.rewrite.onnx_interface import divide_by_length, keep_output, name_inputs
from mmalign_export.sources.onnx_roles import check_sides, dtype_of, inputs_of, roles_of, vector_of
from mmalign_export.sources.refusals import check_alive, first_sentence
from mmalign_runtime.spec import Modality

Arrays = Mapping[str, NDArray[np.generic]]
Vectors = NDArray[np.float32]

# A graph that onnxruntime runs need not be one that the standard allows.
_WRITING_ERRORS = (*ONNXRUNTIME_ERRORS, cast("type[Exception]", onnx.checker.ValidationError))
_TRIED_BATCH = 3
_SAME = 1e-3


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
