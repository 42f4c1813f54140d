from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.layers import StdConv2d
from torch import Tensor, nn

from mmalign.features.folded import folded
from tests.tolerances import FOLDED


def images(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def with_statistics(tower: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and weights that change what it is given."""
    generator = torch.Generator().manual_seed(2)
    for layer in tower.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
            for tensor in (layer.running_mean, layer.bias):
                assert tensor is not None
                tensor.data.normal_(0, 0.3, generator=generator)
            for tensor in (layer.running_var, layer.weight):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return tower


def num_norms(tower: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in tower.modules())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.resnet18(weights=None),
        lambda: timm.create_model("test_resnet", num_classes=0),
        lambda: timm.create_model("test_efficientnet", num_classes=0),  # BatchNorm and activation in one layer
        lambda: timm.create_model("test_byobnet", num_classes=0),
    ],
    ids=["resnet18", "resnet", "efficientnet", "byobnet"],
)
def test_a_folded_tower_gives_the_same_features(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    tower = with_statistics(make()).train()
    before = copy.deepcopy(tower.state_dict())
    quick = folded(tower, (images(32),))
    assert quick is not None
    assert num_norms(quick) == 0 < num_norms(tower)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.state_dict().items())
    assert tower.training
    assert not quick.training
    with torch.inference_mode():
        expected, seen = tower.eval()(2 * images(64)), quick(2 * images(64))
    assert (seen - expected).abs().max() <= FOLDED.bound * expected.abs().max()


class _Both(nn.Module):
    """What the convolution gives is used without the normalization too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        given = self.conv(pixel_values)
        return (self.norm(given).relu() + given).mean((2, 3))


class _Twice(nn.Module):
    """One convolution before two normalizations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norms = nn.Conv2d(3, 3, 1), nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, pixel_values: Tensor) -> Tensor:
        for norm in self.norms:
            pixel_values = norm(self.conv(pixel_values))
        return pixel_values.mean((2, 3))


@pytest.mark.parametrize(
    "tower",
    [
        _Both(),
        _Twice(),
        nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)),  # makes its weights from what it holds
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
    ],
    ids=["used twice", "run twice", "standardized", "no statistics", "before", "no BatchNorm"],
)
def test_what_would_give_other_features_is_not_folded(tower: nn.Module) -> None:
    assert folded(with_statistics(tower), (images(16),)) is None
