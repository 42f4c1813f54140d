from __future__ import annotations

import torch
from torch.nn import functional

from mmalign.zero_shot import class_prompts, class_vectors, zero_shot_accuracy


def groups(*names: str) -> list[frozenset[str]]:
    return [frozenset(name) for name in names]


def test_prompts_come_class_after_class() -> None:
    assert class_prompts(["cat", "{}"], ["{}", "a {}!"]) == ["cat", "a cat!", "{}", "a {}!"]


def test_class_vector_is_the_mean_of_its_prompts() -> None:
    prompts = functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors = class_vectors(prompts, num_classes=2)
    expected = prompts[3] + prompts[4] + prompts[5]
    assert torch.allclose(vectors[1], expected / expected.norm())


def test_accuracy_counts_labelled_images() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    accuracy = zero_shot_accuracy(images, torch.eye(2), groups("a", "b", "", "a"), ["a", "b"])
    assert accuracy == 2 / 3


def test_a_constant_model_is_right_about_nothing() -> None:
    assert zero_shot_accuracy(torch.ones(4, 2), torch.ones(2, 2), groups("a", "b", "a", "a"), ["a", "b"]) == 0.0


def test_an_image_of_two_classes_is_right_as_either() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert zero_shot_accuracy(images, torch.eye(2), [frozenset("ab"), frozenset("b")], ["a", "b"]) == 0.5
