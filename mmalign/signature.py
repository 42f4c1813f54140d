"""What a tower's module is called with: names, dtypes and shapes of its inputs, which of their sizes may change.

Declared once for each tower, and read by whatever traces, compiles or feeds it.
Shapes: B batch, L text tokens, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor
from torch.export import Dim

from mmalign_runtime.spec import ImageSpec, TextSpec

# Traced with sizes that are not a special case: neither 1 nor equal.
_TRACED_BATCH = 3
_TRACED_LENGTH = 11
_DTYPES = {"float32": torch.float32, "int64": torch.int64}
ATTENTION_MASK = "attention_mask"


class Axis(msgspec.Struct, frozen=True):
    """A size that may change, `least` to `most` where there are limits. Axes of one name have one size."""

    name: str
    least: int | None = None
    most: int | None = None


BATCH = Axis("batch")


class ModuleInput(msgspec.Struct, frozen=True):
    """One input of a module: its name, its dtype, and its shape, fixed sizes and axes. The first one is BATCH."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int | Axis, ...]


class TraceExample(msgspec.Struct, frozen=True):
    """Example inputs of a module, in order, and which of their sizes may change."""

    inputs: tuple[Tensor, ...]
    dynamic_shapes: tuple[dict[int, Dim], ...]


def image_inputs(spec: ImageSpec) -> tuple[ModuleInput, ...]:
    """Return pixel_values (B, 3, H, W) float32, of patches (B, N, 3 P^2 + 2)."""
    return (ModuleInput("pixel_values", "float32", (BATCH, *spec.values_shape)),)


def text_inputs(spec: TextSpec) -> tuple[ModuleInput, ...]:
    """Return input_ids and attention_mask, both (B, L) int64, L at most the context's length."""
    longest = max(spec.context_length, _TRACED_BATCH)  # a range has two lengths at least
    shape = (BATCH, Axis("length", least=2, most=longest))
    return ModuleInput("input_ids", "int64", shape), ModuleInput(ATTENTION_MASK, "int64", shape)


def trace_example(inputs: Sequence[ModuleInput]) -> TraceExample:
    """Return inputs to trace a module with: seeded noise, ids of ones, and a mask that leaves some padding out."""
    generator = torch.Generator().manual_seed(0)
    seen: set[str] = set()
    tensors = tuple(_tensor(each, generator) for each in inputs)
    return TraceExample(tensors, tuple(_dynamic(each, seen) for each in inputs))


def _tensor(declared: ModuleInput, generator: torch.Generator) -> Tensor:
    shape = [size if isinstance(size, int) else _traced_size(size) for size in declared.shape]
    if declared.dtype == "float32":
        return torch.randn(*shape, generator=generator)
    values = torch.ones(shape, dtype=_DTYPES[declared.dtype])
    if declared.name == ATTENTION_MASK:
        values[0, shape[1] // 2 :] = 0  # some padding, so that no trace takes the mask for all ones
    return values


def _traced_size(axis: Axis) -> int:
    return _TRACED_BATCH if axis == BATCH else min(_TRACED_LENGTH, axis.most or _TRACED_LENGTH)


def _dynamic(declared: ModuleInput, seen: set[str]) -> dict[int, Dim]:
    """Return the axes that may change; naming one a second time only makes the exporter warn."""
    found: dict[int, Dim] = {}
    for position, size in enumerate(declared.shape):
        if isinstance(size, Axis):
            found[position] = Dim.AUTO if size.name in seen else Dim(size.name, min=size.least, max=size.most)
            seen.add(size.name)
    return found
