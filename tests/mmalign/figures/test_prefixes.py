from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmalign.errors import ConfigError
from mmalign.figures.prefixes import prefix_scores
from mmalign.figures.retrieval import Relevance

LABELS = [(item,) for item in range(20)]
RELEVANT = Relevance(LABELS, LABELS)


def test_recall_is_that_of_shortened_unit_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    images = functional.normalize(torch.randn(20, 12, generator=generator), dim=-1)
    texts = functional.normalize(images + 0.3 * torch.randn(20, 12, generator=generator), dim=-1)
    found = prefix_scores(images, texts, RELEVANT, declared=(8, 4), asked=(3, 4))
    assert [(each.dim, each.is_declared) for each in found] == [(3, False), (4, True), (8, True)]
    for each in found:
        short = [side[:, : each.dim].double().numpy() for side in (images, texts)]
        images_of, texts_of = (side / np.linalg.norm(side, axis=1)[:, None] for side in short)
        cosines = images_of @ texts_of.T
        assert each.image_to_text.at_1 == (cosines.argmax(axis=1) == np.arange(20)).mean()
        assert each.text_to_image.at_1 == (cosines.argmax(axis=0) == np.arange(20)).mean()


@pytest.mark.parametrize("dim", [12, 13])
def test_a_prefix_is_shorter_than_the_vector(dim: int) -> None:
    vectors = functional.normalize(torch.ones(20, 12), dim=-1)
    with pytest.raises(ConfigError, match=f"the first {dim} components was asked for .*, of vectors of 12"):
        prefix_scores(vectors, vectors, RELEVANT, declared=(), asked=(dim,))
