"""May these vectors be compared? Only within one space; and within one variant they are equal to the last digit."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import InputError, SpaceMismatchError
from mmalign_runtime.prefixes import fix_of_dims
from mmalign_runtime.saved import SavedVectors


class HasSpace(Protocol):
    """What lives in a space: an Embedder, a Bundle, SavedVectors."""

    @property
    def space_id(self) -> str:
        """The id of the space."""


class Compatibility(msgspec.Struct, frozen=True):
    """Whether two things live in one space, and what to do when they do not."""

    left_space: str
    right_space: str
    fix: str = ""

    @property
    def is_same_space(self) -> bool:
        """Whether their vectors may be compared."""
        return self.left_space == self.right_space

    def __bool__(self) -> bool:
        return self.is_same_space

    def require(self) -> None:
        """Raise SpaceMismatchError, with the fix in it, unless it is the same space."""
        if not self.is_same_space:
            raise SpaceMismatchError(self.left_space, self.right_space, self.fix)


def compat(left: HasSpace, right: HasSpace) -> Compatibility:
    """Say whether the vectors of two embedders, bundles or files of vectors may be compared with each other."""
    if left.space_id == right.space_id:
        return Compatibility(left.space_id, right.space_id)
    fix = "embed one side again with the other's bundle: `mmalign embed BUNDLE INPUT --out FILE --force`."
    return Compatibility(left.space_id, right.space_id, fix_of_dims(left.space_id, right.space_id) or fix)


def similarity(left: SavedVectors, right: SavedVectors) -> NDArray[np.float32]:
    """Return the cosines (N, M) of N with M vectors of unit length.

    Raises SpaceMismatchError when they live in two spaces, InputError when their lengths D differ.
    """
    compat(left, right).require()
    if left.vectors.shape[1] != right.vectors.shape[1]:
        seen = f"{left.vectors.shape[1]} and {right.vectors.shape[1]}"
        raise InputError(f"vectors of one space have lengths {seen}: one file is not what it says. Embed both again.")
    cosines: NDArray[np.float32] = left.vectors @ right.vectors.T
    return cosines
