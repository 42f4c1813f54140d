"""A tower tried on the inputs that its spec makes, before anything else: libraries raise what they like on a bad model.

Shapes: B batch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mmalign.signature import ModuleInput, trace_example
from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_alive, first_sentence


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
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(example[0]):
            seen = f"of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise SourceError(f"the {name} gives {seen}; expected a tensor (B, D), one vector an item.")
        if example[0].is_floating_point():  # the ids of an example may all be padding, which has no vector
            check_alive(f"the {name}", found.numpy())
        widths.append(int(found.shape[1]))
    return tuple(widths)
