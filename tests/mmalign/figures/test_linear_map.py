from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mmalign.figures.linear_map import LinearMap, fit_linear_map
from tests.tolerances import LINEAR_MAP_RECOVERY, RIDGE_WEIGHT


def planted(num_items: int, noise: float) -> tuple[Tensor, Tensor]:
    """Make image features, and text features that are a linear map of them plus noise, all of unit length."""
    generator = torch.Generator().manual_seed(0)
    image = functional.normalize(torch.randn(num_items, 12, generator=generator), dim=-1)
    weight, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    text = image @ weight + noise * torch.randn(num_items, 12, generator=generator)
    return image, functional.normalize(text, dim=-1)


def test_recovers_a_planted_map() -> None:
    image, text = planted(200, noise=0.0)
    linear_map = fit_linear_map(image, text, lambda candidate: -candidate.strength)
    cosine = (linear_map.embed_image(image) * linear_map.embed_text(text)).sum(dim=1)
    assert (1 - cosine).max() <= LINEAR_MAP_RECOVERY.bound


def test_takes_the_strength_that_scores_best() -> None:
    image, text = planted(60, noise=0.1)
    seen: list[float] = []

    def score(candidate: LinearMap) -> float:
        seen.append(candidate.strength)
        return 1.0 if candidate.strength == 10.0 else 0.0

    assert fit_linear_map(image, text, score).strength == 10.0
    assert len(seen) == len(set(seen)) > 3


def test_equals_ridge_regression_solved_directly() -> None:
    image, text = (features.double() for features in planted(60, noise=0.1))
    linear_map = fit_linear_map(image.float(), text.float(), lambda candidate: candidate.strength == 1.0)
    centred, target = image - image.mean(dim=0), text - text.mean(dim=0)
    gram = centred.T @ centred
    ridge = torch.linalg.solve(gram + gram.trace() / 12 * torch.eye(12), centred.T @ target)
    assert torch.allclose(linear_map.weight.double(), ridge, atol=RIDGE_WEIGHT.bound)


def test_features_that_say_nothing_give_no_nan() -> None:
    linear_map = fit_linear_map(torch.ones(5, 3), torch.ones(5, 2), lambda candidate: 0.0)
    assert linear_map.embed_image(torch.ones(2, 3)).isfinite().all()
