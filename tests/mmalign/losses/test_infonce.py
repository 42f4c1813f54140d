from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.losses.infonce import contrastive_loss
from tests.mmalign.largest import Largest
from tests.tolerances import LOSS_AGAINST_NUMPY, LOSS_GRADIENT

SCALE = torch.tensor(14.0)


def unit(num_rows: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(num_rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def numpy_loss(image: Tensor, text: Tensor, scale: float, concepts: list[int]) -> float:
    """Spell the definition out in float64: for each row, the mean of -log p over its positives; both ways, averaged."""
    logits: NDArray[np.float64] = scale * image.double().numpy() @ text.double().numpy().T
    losses = []
    for matrix in (logits, logits.T):
        for row, scores in enumerate(matrix):
            log_total = np.log(np.exp(scores - scores.max()).sum()) + scores.max()
            positives = [column for column, concept in enumerate(concepts) if concept == concepts[row]]
            losses.append(np.mean([log_total - scores[column] for column in positives]))
    return float(np.mean(losses))


def numpy_gradients(image: Tensor, text: Tensor, scale: float, concepts: list[int]) -> list[NDArray[np.float64]]:
    """Differentiate the definition by hand: by each logit, its probability less its target, both ways."""
    pictures, words = image.double().numpy(), text.double().numpy()
    same = np.equal.outer(concepts, concepts)
    targets = same / same.sum(axis=1, keepdims=True)
    raised = np.exp(scale * pictures @ words.T)
    by_logit = (raised / raised.sum(axis=1, keepdims=True) + raised / raised.sum(axis=0) - targets - targets.T) / (
        2 * len(concepts)
    )
    by_scale = np.array((by_logit * (pictures @ words.T)).sum())
    return [scale * by_logit @ words, scale * by_logit.T @ pictures, by_scale]


@pytest.mark.parametrize("concepts", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [7, 7, 7, 7, 7, 7]])
def test_gradients_equal_the_definition_in_numpy(concepts: list[int]) -> None:
    tensors = [tensor.clone().requires_grad_() for tensor in (unit(6, 1), unit(6, 2), SCALE)]
    found = torch.autograd.grad(contrastive_loss(*tensors, torch.tensor(concepts)), tensors)
    for gradient, wanted in zip(found, numpy_gradients(unit(6, 1), unit(6, 2), 14.0, concepts), strict=True):
        assert np.abs(gradient.numpy() - wanted).max() <= LOSS_GRADIENT.bound * np.abs(wanted).max()


@pytest.mark.parametrize("concepts", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [7, 7, 7, 7, 7, 7]])
def test_equals_the_definition_in_numpy(concepts: list[int]) -> None:
    image, text = unit(6, 1), unit(6, 2)
    loss = contrastive_loss(image, text, SCALE, torch.tensor(concepts))
    assert abs(loss.item() - numpy_loss(image, text, 14.0, concepts)) <= LOSS_AGAINST_NUMPY.bound


def test_equals_cross_entropy_when_all_concepts_differ() -> None:
    image, text = unit(17, 3), unit(17, 4)
    logits, labels = SCALE * image @ text.T, torch.arange(17)
    expected = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    loss = contrastive_loss(image, text, SCALE, labels)
    assert abs(loss.item() - expected.item()) <= LOSS_AGAINST_NUMPY.bound


def test_pairs_of_one_concept_pull_each_other_and_others_push() -> None:
    image = torch.eye(3)  # so that a gradient's first component is that of the cosine with the first image
    text, scale = torch.zeros(3, 3, requires_grad=True), torch.tensor(1.0)
    (shared,) = torch.autograd.grad(contrastive_loss(image, text, scale, torch.tensor([0, 0, 1])), text)
    (apart,) = torch.autograd.grad(contrastive_loss(image, text, scale, torch.tensor([0, 1, 2])), text)
    assert shared[1, 0] < 0 < apart[1, 0]


def test_pairs_belong_together_by_any_of_their_keys() -> None:
    image, text = unit(4, 1), unit(4, 2)
    keys = torch.tensor([[0, 0], [1, 0], [1, 1], [2, 2]])  # the second shares an image, and a concept with the third
    with_keys = contrastive_loss(image, text, SCALE, keys)
    logits = SCALE * image @ text.T
    shared = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]).float()
    targets = shared / shared.sum(dim=1, keepdim=True)
    expected = sum(functional.cross_entropy(each, targets) for each in (logits, logits.T)) / 2
    assert abs(with_keys.item() - float(expected)) <= LOSS_AGAINST_NUMPY.bound


def test_stays_float32_under_autocast() -> None:
    image, text, ids = unit(6, 1), unit(6, 2), torch.arange(6)
    expected = contrastive_loss(image, text, SCALE, ids)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(image, text, SCALE, ids)
        half = contrastive_loss(image.bfloat16(), text.bfloat16(), SCALE, ids)
    assert loss.dtype == half.dtype == torch.float32
    assert loss.item() == expected.item()


def test_never_holds_more_than_a_matrix() -> None:
    image, text = unit(32, 1).requires_grad_(), unit(32, 2)
    with Largest() as largest:
        torch.autograd.backward(contrastive_loss(image, text, SCALE, torch.arange(32)))
    assert largest.numel == 32 * 32
