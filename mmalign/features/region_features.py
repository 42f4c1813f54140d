"""The regions of images, of a frozen image tower: computed once, kept in float16 on disk, and read a few at a time.

Float16 keeps three digits, which is more than the differences between two augmented views of an image leave.
Shapes: N images, n regions of each, R channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mmalign.data import Pair
from mmalign.data.augment import ImageAugment
from mmalign.distributed import ALONE, World
from mmalign.dual_model import ImageModelTower
from mmalign.features import ImageFeatures
from mmalign.features.cache import FeatureCache, MappedRows
from mmalign.towers.regions import RegionsOfTower, image_tower_with_regions, region_grid


class RegionFeatures:
    """Regions by the images that they are of, mapped from `cache_dir`: memory holds what a batch takes."""

    def __init__(self, tower: ImageModelTower, cache_dir: Path, device: torch.device, world: World = ALONE) -> None:
        own = image_tower_with_regions(tower.backbone)
        grid = region_grid(own, tower.spec.shape)
        self._shape = grid.num_regions, grid.channels
        self._cache = FeatureCache(cache_dir)
        self._world = world
        self._images = ImageFeatures(msgspec.structs.replace(tower, backbone=RegionsOfTower(own)), device, self._cache)

    def of(self, pairs: Sequence[Pair], name: str) -> MappedRows:
        """Return the regions (N, n, R) float16 of the pairs' images. Raises ItemError, and ConfigError without room."""
        key = self._images.key(pairs, "regions, clean")
        return self._kept(key, len(pairs), lambda: self._images.batches(pairs, f"regions, {name}"))

    def of_view(self, pairs: Sequence[Pair], augment: ImageAugment, view: int) -> MappedRows:
        """Return the regions (N, n, R) float16 of one augmented view of each image, by its number. Raises likewise."""
        key = self._images.key(pairs, f"regions, view {view}", msgspec.json.encode(augment.config, order="sorted"))
        description = f"regions, augmented view {view}"
        return self._kept(key, len(pairs), lambda: self._images.view_batches(pairs, augment, view, description))

    def _kept(self, key: list[str | bytes], num_images: int, compute: Callable[[], Iterable[Tensor]]) -> MappedRows:
        what, instead = f"the regions of {num_images} images", "model.attention.weight = 0"
        with self._world.first_then_others():
            return self._cache.mapped(key, compute, (num_images, *self._shape), what=what, instead=instead)
