"""Stage 2 of the proof: the pixels of pictures are those of the library's own processor, within two levels.

Beside the golden images, pictures with sides in many ratios are compared: how a library rounds the longer side and the
offset of a crop shows in some only, by a pixel. Libraries also read the same picture differently not by mistake, but by
a convention that a spec may take over.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mmalign.dual_model import ImageModelTower
from mmalign_export.errors import ProofError
from mmalign_export.golden import GoldenFile, golden_photo
from mmalign_export.sources.protocol import Original
from mmalign_runtime.spec import ImageSpec, ProofStage
from mmalign_runtime.spec.image import PLACE

_SHORT, _STEP, _NUM_RATIOS = 150, 7, 8
# Pillow's modes of more than 8 bits, and of other colours: `convert("RGB")` cuts off the ones and mixes the others.
_OTHER_MODES = {"I;16": "16 bits a value", "I;16B": "16 bits a value", "I": "32 bits a value", "F": "float values"}
_OTHER_MODES |= {"CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "LAB"}
# Levels of 255 that two correct resizes may differ by: each rounds once or twice.
LEVELS_BOUND = 2.0
_LARGEST = LEVELS_BOUND + 1e-2  # and rounding in the normalisation


def proof_pictures() -> tuple[GoldenFile, ...]:
    """Return pictures, upright and lying, whose longer sides fall on every remainder of four for any usual size."""
    photo = golden_photo()
    found = []
    for number in range(1, _NUM_RATIOS + 1):
        long = _SHORT + _STEP * number
        for sides in ((_SHORT, long), (long, _SHORT)):
            buffer = io.BytesIO()
            photo.resize(sides, Image.Resampling.BILINEAR).save(buffer, "PNG")
            found.append(GoldenFile(f"{sides[0]} x {sides[1]}", ".png", buffer.getvalue()))
    return tuple(found)


def conventions(data: bytes, spec: ImageSpec, resized_as_stored: bool = False) -> tuple[str, ...]:
    """Return why the spec's pixels of a picture may be others than those of a library that goes by other conventions.

    A library that resizes pictures as they are stored (`resized_as_stored`) makes RGB of them only after that.
    Empty for a picture that has only one reading: its pixels must agree.
    """
    with Image.open(io.BytesIO(data)) as image:
        found = []
        if spec.orientation == "applied" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            found.append("turned as EXIF says")
        if spec.alpha == "composited" and image.has_transparency_data:
            found.append("transparency composited")
        if spec.icc_profile == "to_srgb" and "icc_profile" in image.info:
            found.append("colour profile converted")
        if resized_as_stored and image.mode in ("1", "P", "PA"):
            found.append("a palette, resized by nearest neighbours there")
        if resized_as_stored and spec.alpha == "dropped" and image.has_transparency_data:
            found.append("colours weighted by their alpha there")
        if image.mode in _OTHER_MODES:
            found.append(_OTHER_MODES[image.mode])
        return tuple(found)


class LibraryPixels(msgspec.Struct, frozen=True):
    """The library's pixel_values, one picture each, of each picture, and by name why ours of a picture are others."""

    values: tuple[NDArray[np.float32], ...]
    differing: dict[str, str]
    stage: ProofStage


def prove_pixels(
    tower: ImageModelTower, original: Original, files: Sequence[GoldenFile], resized_as_stored: bool = False
) -> LibraryPixels:
    """Return the library's pixels of files. Raises ProofError, naming the picture, where ours differ by no convention.

    Compared are the pictures in many ratios besides.
    """
    theirs = tuple(_library_pixels(original, file) for file in files)
    differing: dict[str, str] = {}
    moved = [_levels_moved(tower, original, file, _library_pixels(original, file)) for file in proof_pictures()]
    for file, values in zip(files, theirs, strict=True):
        why = conventions(file.data, tower.spec, resized_as_stored)
        levels = _levels_moved(tower, original, file, values, why)
        if levels > _LARGEST:
            differing[file.name] = ", ".join(why)
        else:
            moved.append(levels)
    stage = ProofStage(stage="pixels", tower="image", num_cases=len(moved), largest=max(moved), bound=LEVELS_BOUND)
    return LibraryPixels(theirs, differing, stage)


def _levels_moved(
    tower: ImageModelTower, original: Original, file: GoldenFile, theirs: NDArray[np.float32], why: Sequence[str] = ()
) -> float:
    """Return the largest difference in levels. Raises ProofError when it is too large, and no convention says why."""
    ours = next(iter(tower.prepare([file.data]).values())).astype(np.float32)
    levels = _levels(ours, theirs, tower.spec)
    if levels > _LARGEST and not why:
        raise ProofError(
            f"pixels: {file.name!r} comes out as {ours.shape} and differs by {levels:.1f} levels of 255 from what "
            f"{original.library} makes of it, {theirs.shape}; expected at most {LEVELS_BOUND:g}. The size, crop, "
            "filter or mean of the image spec is not the library's."
        )
    return levels


def _library_pixels(original: Original, file: GoldenFile) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(file.data)) as image:
        return original.pixel_values([image])


def _levels(ours: NDArray[np.float32], theirs: NDArray[np.float32], spec: ImageSpec) -> float:
    """Return the largest difference, in levels of 255; infinite where the shapes or the places are not one."""
    if ours.shape != theirs.shape:
        return float("inf")
    moved = np.abs(ours.astype(np.float64) - theirs)
    if spec.resize == "naflex":
        values, places = moved[..., :-PLACE], moved[..., -PLACE:]
        if places.any():
            return float("inf")
        moved = values.reshape(-1, 3).T[None, :, :, None]  # as one row of pixels
    return float((moved * np.array(spec.std).reshape(1, 3, 1, 1)).max() * 255)
