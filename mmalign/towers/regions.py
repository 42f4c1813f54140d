"""The regions of an image: what a backbone has of each place before it is pooled to one vector.

Of a CNN it is the last map's grid, 7 x 7 for ResNet-50 at 224 pixels; of a ViT its patches, without the tokens that
stand for no place. Shapes: B batch, S image side, F features, N regions, R channels of a region.
"""

from __future__ import annotations

from typing import Protocol, cast

import msgspec
import torch
import torchvision
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.towers.vision import ImageTower

_NOT_POOLED = ("avgpool", "fc")  # what torchvision's ResNet has behind its last map


class _Stages(Protocol):
    """What every backbone of timm has."""

    def forward_features(self, pixel_values: Tensor) -> Tensor: ...

    def forward_head(self, last: Tensor) -> Tensor: ...


class RegionGrid(msgspec.Struct, frozen=True):
    """How the regions of an image lie: rows from the top, columns from the left, and the channels of each."""

    rows: int
    columns: int
    channels: int

    @property
    def num_regions(self) -> int:
        """The number of regions, N, row after row."""
        return self.rows * self.columns


class TowerWithRegions(nn.Module):
    """A tower whose output is the features and the regions beside each other: (B, 3, S, S) -> (B, F + N * R).

    One tensor, so that what runs towers (in chunks, too) runs it; `split` takes it apart.
    """

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return features and regions, flat."""
        features, regions = features_and_regions(self.tower, pixel_values)
        return torch.cat([features, regions.flatten(1)], dim=1)  # (B, F + N * R)

    def split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (B, F) and the regions (B, N, R) of what `forward` gave."""
        features = flat[:, : self.tower.feature_dim]
        return features, flat[:, self.tower.feature_dim :].reshape(len(flat), -1, channels_of(self.tower))


class RegionsOfTower(nn.Module):
    """A tower whose output is its regions alone: (B, 3, S, S) -> (B, N, R)."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the regions, row after row."""
        return features_and_regions(self.tower, pixel_values)[1]


def features_and_regions(tower: ImageTower, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `tower` gives, (B, F), and its regions, (B, N, R), row after row, for pixel_values (B, 3, S, S)."""
    backbone = tower.backbone
    if isinstance(backbone, torchvision.models.ResNet):
        last = pixel_values
        for name, layer in backbone.named_children():
            last = last if name in _NOT_POOLED else layer(last)  # (B, R, h, w)
        features = backbone.fc(backbone.avgpool(last).flatten(1))
    else:  # timm's: what is called so is what `forward` calls, one after the other
        stages = cast("_Stages", backbone)
        last = stages.forward_features(pixel_values)
        features = stages.forward_head(last)
    return features, _regions(backbone, last)


def channels_of(tower: ImageTower) -> int:
    """Return R, the channels of a region: not F where a layer stands behind the pooling, as in MobileNetV3."""
    return cast("int", getattr(tower.backbone, "num_features", tower.feature_dim))


def image_tower_with_regions(tower: nn.Module) -> ImageTower:
    """Return an image tower itself. Raises ConfigError for one that does not give the regions of an image."""
    if isinstance(tower, ImageTower):
        return tower
    raise ConfigError(
        "model.attention needs the regions of an image, and an imported image tower gives its vector alone. Set "
        "model.attention.weight = 0, or choose 'resnet50' or 'timm:NAME' as image_tower.name."
    )


def region_grid(tower: ImageTower, shape: tuple[int, int]) -> RegionGrid:
    """Return how the regions lie that a tower gives of images of `shape` (H, W); one image runs through it.

    Raises ConfigError for a tower whose last map is not a grid.
    """
    was_training = tower.training
    with torch.inference_mode():
        _, regions = features_and_regions(tower.eval(), torch.zeros(1, 3, *shape, device=_device_of(tower)))
    tower.train(was_training)
    num_regions, channels = regions.shape[1:]
    rows, columns = _rows_and_columns(tower.backbone, num_regions, shape)
    if channels != channels_of(tower) or rows * columns != num_regions:
        raise ConfigError(
            f"model.attention needs regions (N, {channels_of(tower)}) that lie in a grid, and the image tower gives "
            f"{num_regions} of {channels} channels. Set model.attention.weight = 0, or choose another tower."
        )
    return RegionGrid(rows, columns, channels)


def _device_of(tower: ImageTower) -> torch.device:
    return next(tower.parameters()).device


def _regions(backbone: nn.Module, last: Tensor) -> Tensor:
    if last.ndim == 2:
        raise ConfigError(
            f"model.attention needs the regions of an image, and {type(backbone).__name__} pools them before its head. "
            "Set model.attention.weight = 0, or choose another tower."
        )
    if last.ndim == 3:  # tokens (B, prefix + N, R), of which the first stand for no place
        return last[:, cast("int", getattr(backbone, "num_prefix_tokens", 0)) :]
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":
        return last.flatten(1, 2)  # (B, N, R)
    return last.flatten(2).transpose(1, 2)  # (B, N, R)


def _rows_and_columns(backbone: nn.Module, num_regions: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns in the ratio of the image's sides."""
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if grid is not None and grid[0] * grid[1] == num_regions:
        return int(grid[0]), int(grid[1])
    rows = max(1, round((num_regions * shape[0] / shape[1]) ** 0.5))
    return rows, num_regions // rows
