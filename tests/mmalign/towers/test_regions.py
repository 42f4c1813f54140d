from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.towers.regions import (
    TowerWithRegions,
    channels_of,
    features_and_regions,
    image_tower_with_regions,
    region_grid,
)
from mmalign.towers.vision import ImageTower, create_image_tower
from tests.tolerances import FEATURES

SHAPE = (64, 96)


def images() -> Tensor:
    return torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


def timm_tower(name: str, **settings: object) -> ImageTower:
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    return ImageTower(backbone, getattr(backbone, "head_hidden_size", None) or backbone.num_features).eval()


@pytest.mark.parametrize(
    ("name", "settings", "grid"),
    [
        ("test_resnet", {}, (2, 3)),
        ("mobilenetv3_small_050", {}, (2, 3)),
        ("convnext_atto", {}, (2, 3)),
        ("test_vit", {"img_size": SHAPE}, (4, 6)),
        ("swin_tiny_patch4_window7_224", {"img_size": SHAPE, "window_size": 2, "depths": (1, 1, 1, 1)}, (2, 3)),
    ],
)
def test_regions_come_beside_the_features_that_the_tower_gives(
    name: str, settings: dict[str, object], grid: tuple[int, int]
) -> None:
    tower = timm_tower(name, **settings)
    found = region_grid(tower, SHAPE)
    assert (found.rows, found.columns) == grid
    with torch.inference_mode():
        features, regions = features_and_regions(tower, images())
        assert (features - tower(images())).abs().max() <= FEATURES.bound
    assert regions.shape == (2, found.num_regions, found.channels)
    assert found.channels == channels_of(tower)


def test_the_mean_of_a_resnets_regions_is_its_feature() -> None:
    torch.manual_seed(0)
    tower = create_image_tower("resnet50")
    assert isinstance(tower, ImageTower)
    with torch.inference_mode():
        features, regions = features_and_regions(tower.eval(), images())
    assert region_grid(tower, SHAPE).num_regions == 6
    assert (regions.mean(dim=1) - features).abs().max() <= FEATURES.bound


def test_regions_go_row_after_row() -> None:
    """A bright spot in the lower left corner is the first region of the last row."""
    layers = [nn.Conv2d(3, 4, 32, stride=32), nn.Conv2d(4, 4, 1)]
    backbone = torchvision.models.resnet18(weights=None)
    for name in ("bn1", "relu", "maxpool", "layer2", "layer3", "layer4", "fc"):
        setattr(backbone, name, nn.Identity())
    backbone.conv1, backbone.layer1 = layers
    pixel_values = torch.zeros(1, 3, *SHAPE)
    pixel_values[..., 32:, :32] = 1.0
    with torch.inference_mode():
        _, regions = features_and_regions(ImageTower(backbone, 4), pixel_values)
    differs = (regions[0] - regions[0, 0]).abs().amax(dim=1) > 1e-3
    assert differs.tolist() == [False, False, False, True, False, False]


def test_flat_output_is_taken_apart_again() -> None:
    tower = timm_tower("mobilenetv3_small_050")
    with torch.inference_mode():
        flat = TowerWithRegions(tower)
        features, regions = flat.split(flat(images()))
        expected_features, expected_regions = features_and_regions(tower, images())
    assert torch.equal(features, expected_features)
    assert torch.equal(regions, expected_regions)


def test_a_tower_that_is_not_one_of_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match="an imported image tower gives its vector alone"):
        image_tower_with_regions(nn.Identity())


class Pooled(nn.Module):
    """A backbone that pools before its head, as some of timm's do."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean(dim=(2, 3))

    def forward_head(self, pooled: Tensor) -> Tensor:
        return pooled


def test_a_backbone_without_a_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="Pooled pools them before its head"):
        region_grid(ImageTower(Pooled(), 3), SHAPE)
