import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import nn

from mmalign_export.rewrite.attention_pool import FirstTokenPool, write_out_pool

# Of values around 1 in float64, summed in another order.
ROUNDING = 1e-13


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("width", "heads"), [(32, 2), (36, 3)])
@torch.inference_mode()
def test_the_first_token_is_what_open_clip_returns(width: int, heads: int) -> None:
    torch.manual_seed(0)
    module = nn.Module()
    module.attnpool = AttentionPool2d(3, width, heads, output_dim=5).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    pool, x = module.attnpool, noise(2, width, 3, 3)
    assert write_out_pool(module)
    assert isinstance(module.attnpool, FirstTokenPool)
    found, expected = module.attnpool(x), pool(x)
    assert found.shape == (2, 5)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= ROUNDING


def test_a_tower_without_it_stays() -> None:
    assert not write_out_pool(nn.Linear(1, 1))
