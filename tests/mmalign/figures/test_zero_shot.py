from __future__ import annotations

import torch
from torch.nn import functional

from mmalign.figures.zero_shot import class_prompts, class_vectors


def test_prompts_come_class_after_class() -> None:
    assert class_prompts(["cat", "{}"], ["{}", "a {}!"]) == ["cat", "a cat!", "{}", "a {}!"]


def test_class_vector_is_the_mean_of_its_prompts() -> None:
    prompts = functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors = class_vectors(prompts, num_classes=2)
    expected = prompts[3] + prompts[4] + prompts[5]
    assert torch.allclose(vectors[1], expected / expected.norm())
