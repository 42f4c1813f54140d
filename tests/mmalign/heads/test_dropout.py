from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmalign.heads.dropout import Dropout


def dropped(p: float, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return Dropout(p).train()(values)


@pytest.mark.parametrize("p", [1e-3, 0.3, 0.5, 0.9])
def test_a_share_of_the_values_is_dropped_and_the_mean_stays(p: float) -> None:
    values = dropped(p, torch.ones(1000, 1001))
    deviation = (p * (1 - p) / values.numel()) ** 0.5
    assert (values == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation + 1 / 2**17)
    assert values.double().mean().item() == pytest.approx(1, abs=5 * deviation / (1 - p) + 1e-5)


def test_rows_and_columns_are_dropped_apart() -> None:
    """No column or row is dropped more often than chance has it, and neighbours are not dropped together."""
    is_zero = (dropped(0.5, torch.ones(512, 1280)) == 0).double()
    for counts, of in ((is_zero.sum(0), 512), (is_zero.sum(1), 1280)):
        assert counts.sub(of / 2).abs().max().item() < 5 * of**0.5 / 2
    for apart in (1, 2, 3, 4, 8, 1280):
        flat = is_zero.flatten()
        together = (flat[apart:] * flat[:-apart]).mean().item()
        assert together == pytest.approx(0.25, abs=5 * (0.1875 / flat.numel()) ** 0.5)


def test_one_seed_is_one_mask_and_the_gradient_has_it_too() -> None:
    values = torch.rand(7, 5, requires_grad=True)
    first = dropped(0.4, values)
    assert torch.equal(first, dropped(0.4, values))
    assert not torch.equal(first, dropped(0.4, values, seed=1))
    first.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad * values, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_types_stay(dtype: torch.dtype) -> None:
    assert dropped(0.5, torch.ones(3, 3, dtype=dtype)).dtype == dtype


def test_nothing_is_dropped_in_evaluation_at_a_share_of_0_or_of_no_rows() -> None:
    values = torch.rand(4, 3)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(dropped(0.0, values), functional.dropout(values, 0.0))
    assert dropped(0.5, torch.empty(0, 3)).shape == (0, 3)
    assert dropped(0.9999999, values).count_nonzero() == 0
