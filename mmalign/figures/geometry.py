"""How vectors lie in their space: alignment and uniformity (Wang and Isola 2020), and the modality gap.

Shapes: N images, M captions, D embedding.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import torch
from torch import Tensor

from mmalign.figures.retrieval import Relevance

# Vectors that uniformity is computed of, drawn at random where there are more: 8.4 million pairs, in place of the 450
# million of 30,000 captions.
MOST_VECTORS = 4096
_ROWS = 512
_SEED = 0


class Geometry(msgspec.Struct, frozen=True):
    """`alignment`: the mean squared distance of an image and a caption of its own, over all such pairs, 0..4.

    `uniformity_images` and `uniformity_texts`: the logarithm of the mean of exp(-2 d^2) over pairs of two images and of
    two captions at distance d; the lower, the more evenly they are spread: -8..0. `modality_gap` (Liang et al. 2022):
    the distance of the centroids of images and of captions, 0..2.
    """

    alignment: float
    uniformity_images: float
    uniformity_texts: float
    modality_gap: float


def geometry(images: Tensor, texts: Tensor, relevant: Relevance) -> Geometry:
    """Return the geometry of unit vectors (N, D) and (M, D); `relevant` says which captions are an image's own."""
    return Geometry(
        alignment=alignment(images, texts, relevant),
        uniformity_images=uniformity(images),
        uniformity_texts=uniformity(texts),
        modality_gap=float((images.double().mean(dim=0) - texts.double().mean(dim=0)).norm()),
    )


def alignment(images: Tensor, texts: Tensor, relevant: Relevance) -> float:
    """Return the mean squared distance of all pairs of an image and a caption of its own."""
    total, num_pairs = 0.0, 0
    for row, image in enumerate(images):
        own = texts[torch.from_numpy(relevant.right(row))].double()  # (P, D)
        total += float(((own - image.double()) ** 2).sum())
        num_pairs += len(own)
    return total / num_pairs


def uniformity(vectors: Tensor) -> float:
    """Return log mean exp(-2 d^2) over pairs of two of the vectors (N, D), of a random 4,096 where there are more.

    0 for a single vector, as for vectors that are all the same.
    """
    if len(vectors) > MOST_VECTORS:
        drawn = np.random.default_rng(_SEED).choice(len(vectors), MOST_VECTORS, replace=False)
        vectors = vectors[torch.from_numpy(drawn)]
    num_pairs = len(vectors) * (len(vectors) - 1)
    if not num_pairs:
        return 0.0
    # Of unit vectors d^2 is 2 - 2 cosine; each vector's pair with itself adds exp(0), which is taken away.
    sums = [torch.exp(4 * (block @ vectors.T) - 4).sum(dtype=torch.float64) for block in torch.split(vectors, _ROWS)]
    return math.log(max(float(sum(sums)) - len(vectors), math.ulp(0.0)) / num_pairs)
