from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.figures import geometry as module
from mmalign.figures.geometry import geometry, uniformity
from mmalign.figures.retrieval import Relevance


def unit(num_rows: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(seed)) + 0.4, dim=-1)


def spread(vectors: Tensor) -> float:
    distances = [float(((a - b) ** 2).sum()) for a, b in combinations(vectors.double(), 2)]
    return math.log(sum(math.exp(-2 * each) for each in distances) / len(distances))


def test_equals_sums_over_pairs_by_hand() -> None:
    images, texts = unit(9, 0), unit(14, 1)
    labels = [(i,) for i in range(9)]
    relevant = Relevance(labels, [(i % 9,) for i in range(14)])
    found = geometry(images, texts, relevant)
    own = [float(((images[i % 9].double() - texts[i].double()) ** 2).sum()) for i in range(14)]
    assert found.alignment == pytest.approx(sum(own) / 14)
    assert found.uniformity_images == pytest.approx(spread(images), abs=1e-6)
    assert found.uniformity_texts == pytest.approx(spread(texts), abs=1e-6)
    centroids = images.double().numpy().mean(axis=0), texts.double().numpy().mean(axis=0)
    assert found.modality_gap == pytest.approx(float(np.linalg.norm(centroids[0] - centroids[1])))


def test_what_is_known_beforehand() -> None:
    assert uniformity(torch.eye(5)) == pytest.approx(-4)  # right angles: d^2 = 2
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8, abs=1e-3)
    assert uniformity(torch.ones(7, 1)) == pytest.approx(0)
    assert uniformity(torch.ones(1, 1)) == 0


def test_of_many_vectors_a_drawn_part_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(3000, 2)
    whole = uniformity(vectors)
    monkeypatch.setattr(module, "MOST_VECTORS", 1000)
    drawn = uniformity(vectors)
    assert drawn != whole
    assert drawn == pytest.approx(whole, abs=0.05)
    assert drawn == uniformity(vectors)
