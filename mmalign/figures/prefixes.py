"""Retrieval by the first components of vectors, made unit vectors again, as an index may keep them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from torch import Tensor
from torch.nn import functional

from mmalign.errors import ConfigError
from mmalign.figures.retrieval import Recall, Relevance, recall_both_ways


class PrefixScores(msgspec.Struct, frozen=True):
    """Recall both ways by the first `dim` components alone; `is_declared` where the model was trained for that."""

    dim: int
    is_declared: bool
    image_to_text: Recall
    text_to_image: Recall


def check_dims(asked: Sequence[int], embed_dim: int) -> None:
    """Raise ConfigError for a number of first components that is not below that of the vectors."""
    if wrong := [dim for dim in asked if not 0 < dim < embed_dim]:
        raise ConfigError(
            f"recall by the first {wrong[0]} components was asked for (--dim, evaluate.dims), of vectors of "
            f"{embed_dim}. Ask for fewer."
        )


def prefix_scores(
    images: Tensor, texts: Tensor, relevant: Relevance, declared: Sequence[int], asked: Sequence[int]
) -> tuple[PrefixScores, ...]:
    """Return the recall of unit vectors (N, D), (M, D) by each prefix that is declared or asked for, shortest first.

    Raises ConfigError for one that is not shorter than the vectors.
    """
    embed_dim = images.shape[1]
    check_dims(asked, embed_dim)
    found = []
    for dim in sorted({*asked, *(dim for dim in declared if dim < embed_dim)}):
        first_images, first_texts = (functional.normalize(each[:, :dim], dim=-1) for each in (images, texts))
        found.append(PrefixScores(dim, dim in declared, *recall_both_ways(first_images, first_texts, relevant)))
    return tuple(found)
