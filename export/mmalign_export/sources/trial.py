"""A tower tried on the inputs that its spec makes, before anything else: libraries raise what they like on a bad model.

Shapes: B batch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.signature import ModuleInput, trace_example
from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_alive, first_sentence

# What batches of other sizes move a component of a unit vector by, in float16 too; dropout and statistics move more.
_SAME = 5e-3


def tried_width(name: str, inputs: Sequence[ModuleInput], *modules: nn.Module) -> tuple[int, ...]:
    """Return how long the vectors are that modules give one after the other: (B, F) of the first one's inputs, and on.

    Raises SourceError, naming the tower, for an error in a forward and for something else than vectors.
    """
    found: object = None
    widths = []
    for module in modules:
        try:
            example = trace_example(inputs).inputs  # sizes that no memory holds are an error of the configuration too
            with torch.inference_mode():
                found = module(*example) if found is None else module(found)
        except LIBRARY_ERRORS as error:
            raise SourceError(
                f"the {name} cannot take {', '.join(each.name for each in inputs)} as its configuration makes them: "
                f"{type(error).__name__}: {first_sentence(error)}. Model and configuration disagree, or its library "
                "does not support this configuration."
            ) from error
        found = _vectors(name, found, len(example[0]))
        if example[0].is_floating_point():  # the ids of an example may all be padding, which has no vector
            check_alive(f"the {name}", found.float().numpy())
        widths.append(int(found.shape[1]))
    return tuple(widths)


def _vectors(name: str, found: object, num_items: int) -> Tensor:
    """Return what a tower gave. Raises SourceError unless it is a tensor (B, F) of floating-point numbers."""
    seen = type(found).__name__
    if isinstance(found, Tensor):
        if found.is_floating_point() and found.ndim == 2 and len(found) == num_items:
            return found
        seen = f"a tensor {tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}"
    raise SourceError(f"the {name} gives {seen}; expected a tensor (B, D) of floats, one vector an item.")


def check_each_alone(name: str, module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raise SourceError, naming the module, where an item has another vector beside others, or the second time.

    Of inputs of several items, which are not alike.
    """
    try:
        with torch.inference_mode():
            found = [module(*inputs), module(*inputs)]
            found.append(torch.cat([module(*(each[at : at + 1] for each in inputs)) for at in range(len(inputs[0]))]))
    except LIBRARY_ERRORS as error:
        raise SourceError(
            f"the {name} cannot take its inputs, several items or one: {type(error).__name__}: "
            f"{first_sentence(error)}. Correct its forward, or the specs and the tokenizer that make its inputs."
        ) from error
    first, second, alone = (functional.normalize(each.double(), dim=-1) for each in found)
    if not torch.allclose(first, second, rtol=0, atol=_SAME):
        raise SourceError(
            f"the {name} gives another vector for the same input the second time (by {_largest(first, second)}): "
            "something is drawn at random although it is in evaluation mode. Turn dropout and noise off in its forward."
        )
    if not torch.allclose(first, alone, rtol=0, atol=_SAME):
        raise SourceError(
            f"the {name} gives an item another vector beside others than alone (by {_largest(first, alone)}): its "
            "vectors depend on the batch. Take statistics of the batch out of its forward."
        )


def _largest(left: Tensor, right: Tensor) -> str:
    return f"{float((left - right).abs().max()):.1e}"
