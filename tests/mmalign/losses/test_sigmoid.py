from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch
from mmalign.losses.sigmoid import SigmoidConfig, sigmoid_loss
from tests.tolerances import LOSS_AGAINST_NUMPY, LOSS_GRADIENT

Array = NDArray[np.float64]
SCALE, BIAS = 10.0, -4.0


def unit(num_rows: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(num_rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def numpy_loss(image: Array, text: Array, scale: float, bias: float, concepts: list[int]) -> float:
    """Spell algorithm 1 of the paper out in float64, cell by cell: z is 1 for a match and -1 for any other cell."""
    total = 0.0
    for row, picture in enumerate(image):
        for column, words in enumerate(text):
            z = 1.0 if concepts[row] == concepts[column] else -1.0
            total += math.log1p(math.exp(-z * (scale * float(picture @ words) + bias)))
    return total / len(image)


def numpy_gradients(
    image: Array, text: Array, scale: float, bias: float, concepts: list[int]
) -> tuple[Array, Array, Array, Array]:
    """Differentiate that sum by hand: the derivative by each logit is -z sigmoid(-z logit) / B."""
    cosines = image @ text.T
    z = np.where(np.equal.outer(concepts, concepts), 1.0, -1.0)
    by_logit = -z / (1 + np.exp(z * (scale * cosines + bias))) / len(image)
    by_scale, by_bias = np.array((by_logit * cosines).sum()), np.array(by_logit.sum())
    return scale * by_logit @ text, scale * by_logit.T @ image, by_scale, by_bias


@pytest.mark.parametrize("concepts", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [7, 7, 7, 7, 7, 7]])
def test_value_and_gradients_equal_the_definition_in_numpy(concepts: list[int]) -> None:
    tensors = (unit(6, 1), unit(6, 2), torch.tensor(SCALE), torch.tensor(BIAS))
    for tensor in tensors:
        tensor.requires_grad_()
    loss = sigmoid_loss(*tensors, torch.tensor(concepts))
    image, text = (tensor.detach().double().numpy() for tensor in tensors[:2])
    assert abs(loss.item() / numpy_loss(image, text, SCALE, BIAS, concepts) - 1) <= LOSS_AGAINST_NUMPY.bound
    expected = numpy_gradients(image, text, SCALE, BIAS, concepts)
    for found, wanted in zip(torch.autograd.grad(loss, tensors), expected, strict=True):
        assert np.abs(found.numpy() - wanted).max() <= LOSS_GRADIENT.bound * np.abs(wanted).max()


def test_pairs_belong_together_by_any_of_their_keys() -> None:
    image, text = unit(3, 1), unit(3, 2)
    keys = torch.tensor([[0, 0], [1, 0], [2, 2]])  # the first two share an image
    by_image = sigmoid_loss(image, text, torch.tensor(SCALE), torch.tensor(BIAS), keys)
    by_concept = sigmoid_loss(image, text, torch.tensor(SCALE), torch.tensor(BIAS), torch.tensor([0, 0, 1]))
    assert by_image.item() == by_concept.item()


def test_logits_beyond_the_range_of_exp_stay_finite() -> None:
    far = torch.eye(2), torch.eye(2).flip(0), torch.tensor(100.0), torch.tensor(-10.0)  # every cell is wrong
    expected = (2 * 10.0 + 2 * 90.0) / 2  # two matches of logit -10, two others of logit 90
    assert sigmoid_loss(*far, torch.arange(2)).item() == pytest.approx(expected, rel=LOSS_AGAINST_NUMPY.bound)


def test_stays_float32_under_autocast() -> None:
    tensors, keys = (unit(6, 1), unit(6, 2), torch.tensor(SCALE), torch.tensor(BIAS)), torch.arange(6)
    expected = sigmoid_loss(*tensors, keys)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sigmoid_loss(*tensors, keys)
        half = sigmoid_loss(tensors[0].bfloat16(), tensors[1].bfloat16(), *tensors[2:], keys)
    assert loss.dtype == half.dtype == torch.float32
    assert loss.item() == expected.item()


def test_it_begins_as_in_the_paper_and_is_read_by_a_sigmoid() -> None:
    loss = SigmoidConfig().build()
    assert {name: tensor.item() for name, tensor in loss.named_parameters()} == {
        "logit_scale": pytest.approx(math.log(10)),
        "logit_bias": -10.0,
    }
    with torch.no_grad():
        loss.logit_bias.fill_(-3.0)
    found = loss.similarity()
    assert (found.kind, found.scale, found.bias) == ("sigmoid", pytest.approx(10.0), -3.0)


def test_a_batch_is_scored_with_its_own_scale_and_bias() -> None:
    loss = SigmoidConfig(temperature=0.5, bias=-1.0, learn_bias=False).build()
    batch = EmbeddedBatch(unit(4, 1), unit(4, 2), torch.arange(4))
    value: Tensor = loss(batch)
    expected = sigmoid_loss(batch.image_embeds, batch.text_embeds, torch.tensor(2.0), torch.tensor(-1.0), batch.keys)
    assert value.item() == pytest.approx(expected.item(), rel=LOSS_AGAINST_NUMPY.bound)
    assert "logit_bias" not in dict(loss.named_parameters())
    assert loss.state_dict()["logit_bias"].item() == -1.0
