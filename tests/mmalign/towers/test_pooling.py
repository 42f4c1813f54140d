from __future__ import annotations

import numpy as np
import pytest
import torch

from mmalign.towers.pooling import AttentionPool, Pooling, pool_tokens
from tests.tolerances import POOLED

# Two texts of two and three tokens; what stands on padding would show in every result.
HIDDEN = torch.tensor([[[1.0, -8.0], [3.0, -2.0], [99.0, 99.0]], [[5.0, 0.0], [2.0, 1.0], [2.0, 8.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [[1.0, -8.0], [5.0, 0.0]]),
        ("mean", [[2.0, -5.0], [3.0, 3.0]]),
        ("last", [[3.0, -2.0], [2.0, 8.0]]),
        ("max", [[3.0, -2.0], [5.0, 8.0]]),
    ],
)
def test_pooling_is_of_the_tokens_and_not_of_padding(pooling: Pooling, expected: list[list[float]]) -> None:
    assert pool_tokens(HIDDEN, MASK, pooling).tolist() == expected


@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_padding_may_stand_on_the_left(pooling: Pooling) -> None:
    right = pool_tokens(HIDDEN, MASK, pooling)
    left = pool_tokens(HIDDEN[:, [2, 0, 1]][:1], MASK[:, [2, 0, 1]][:1], pooling)
    assert left.tolist() == right[:1].tolist()


def test_a_query_weighs_tokens_by_a_softmax_of_products() -> None:
    rng = np.random.default_rng(0)
    hidden, query = rng.normal(size=(3, 5, 4)), rng.normal(size=4)
    lengths = (5, 3, 1)
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in lengths])
    pool = AttentionPool(4)
    with torch.no_grad():
        pool.query.copy_(torch.from_numpy(query))
    found = pool(torch.from_numpy(hidden).float(), mask)
    for row, length in enumerate(lengths):
        scores = np.exp(hidden[row, :length] @ query / 2)  # the root of four channels
        expected = scores / scores.sum() @ hidden[row, :length]
        assert np.abs(found[row].detach().numpy() - expected).max() <= POOLED.bound


def test_attention_begins_as_the_mean_and_its_query_has_a_gradient() -> None:
    pool = AttentionPool(2)
    found = pool(HIDDEN, MASK)
    assert (found - pool_tokens(HIDDEN, MASK, "mean")).abs().max() <= POOLED.bound
    found.square().sum().backward()
    assert pool.query.grad is not None
    assert pool.query.grad.abs().min() > 0.1


def test_attention_gives_padding_no_weight() -> None:
    pool = AttentionPool(2)
    torch.nn.init.ones_(pool.query)
    padded = HIDDEN.clone()
    padded[0, 2] = 1e4
    assert torch.equal(pool(padded, MASK), pool(HIDDEN, MASK))
