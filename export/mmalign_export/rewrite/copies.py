"""A copy of a module to be rewritten, which leaves the original whole and holds its tensors only once."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def structural_copy(module: ModuleT) -> ModuleT:
    """Return a copy of a module whose parameters and buffers are those of the original, not copies of them.

    Replacing its submodules or parameters leaves the original as it is; writing into its tensors does not.
    """
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
