import pytest
import timm
import torch
from torch import nn

from mmalign_export.rewrite.attention import structural_copy
from mmalign_export.rewrite.reparameterized import fold_branches

# Of vectors of components around 1: folding a BatchNorm rounds each weight.
ROUNDING = 1e-4


def fastvit() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "fastvit_mci0", num_classes=16, embed_dims=(16, 32, 32, 32), layers=(1, 1, 1, 1), pretrained=False
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@torch.inference_mode()
def test_folded_branches_give_the_same_numbers_with_fewer_modules() -> None:
    model = fastvit()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = model(x)
    folded = structural_copy(model)
    assert fold_branches(folded) > 10
    found = folded(x)
    scale = float(expected.std())
    assert scale > 1e-3
    assert float((found - expected).abs().max()) <= ROUNDING * scale
    kinds = [sum(isinstance(each, nn.BatchNorm2d) for each in one.modules()) for one in (model, folded)]
    assert kinds[1] < kinds[0] / 4
    assert torch.equal(model(x), expected)  # the original stays


def test_a_network_without_branches_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert fold_branches(model) == 0
    assert [type(each) for each in model] == [nn.Conv2d, nn.BatchNorm2d]


def test_statistics_of_training_are_not_folded() -> None:
    with pytest.raises(AssertionError, match="running statistics"):
        fold_branches(fastvit().train())
