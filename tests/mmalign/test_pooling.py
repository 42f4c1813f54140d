from __future__ import annotations

import pytest
import torch

from mmalign.pooling import Pooling, pool_tokens

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
