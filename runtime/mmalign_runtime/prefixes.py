"""Prefixes of vectors: the first components, made unit vectors again, where a model was trained for that (Matryoshka).

Vectors of a prefix live in a space of their own, whose id says how many components they have: a saved file of 64 is
never compared with one of 256. Shapes: D embedding.
"""

from __future__ import annotations

import numpy as np

from mmalign_runtime.errors import EngineError, PrefixError
from mmalign_runtime.spec import BundleSpec
from mmalign_runtime.streaming import Vectors

_MARK = "-dim"  # between the id of the whole vectors' space and the number of components


def declared_dim(spec: BundleSpec, dim: int | None) -> int | None:
    """Return how many first components are asked for, None for whole vectors, also where all are asked for.

    Raises PrefixError, naming those that there are, for a number that the bundle does not declare.
    """
    if dim is None or dim == spec.embed_dim:
        return None
    if dim not in spec.prefix_dims:
        prefixes = ", ".join(map(str, sorted(spec.prefix_dims)))
        declared = f"prefixes of {prefixes} components" if prefixes else "no prefix"
        raise PrefixError(
            f"dim is {dim}, and the bundle declares {declared} of its vectors of {spec.embed_dim}. Ask for one of "
            "these, or leave dim out; the term 'matryoshka' of training makes prefixes."
        )
    return dim


def prefix_space_id(space_id: str, dim: int | None) -> str:
    """Return the id of the space of prefixes; that of whole vectors for None."""
    return space_id if dim is None else f"{space_id}{_MARK}{dim}"


def prefix_of(vectors: Vectors, dim: int) -> Vectors:
    """Return the first `dim` components of vectors (..., D), of unit length. Raises EngineError where all are 0."""
    first = vectors[..., :dim]
    lengths = np.linalg.norm(first, axis=-1, keepdims=True)
    if not lengths.all():
        raise EngineError(f"the first {dim} components of a vector are all 0. Embed without dim.")
    short: Vectors = np.divide(first, lengths, dtype=np.float32)
    return short


def fix_of_dims(asked: str, there: str) -> str | None:
    """Say how to ask for the vectors of space `there`, where the two spaces are prefixes of one; None where not."""
    (left, _, _), (right, _, dim) = asked.partition(_MARK), there.partition(_MARK)
    if left != right:
        return None
    return (
        f"ask for them with dim={dim} (--dim {dim})."
        if dim
        else "ask for whole vectors: leave dim out or, where a profile has it, give their full length."
    )
