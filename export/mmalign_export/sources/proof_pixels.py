"""Stage 2 of the proof: the pixels of golden images are those of the library's own processor, within two levels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.dual_model import ImageModelTower
from mmalign_export.errors import ProofError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources.conventions import conventions
from mmalign_export.sources.proof_pictures import proof_pictures
from mmalign_export.sources.protocol import Original
from mmalign_runtime.spec import ImageSpec, ProofStage
from mmalign_runtime.spec.image import PLACE

# Levels of 255 that two correct resizes may differ by: each rounds once or twice.
LEVELS_BOUND = 2.0
_LARGEST = LEVELS_BOUND + 1e-2  # and rounding in the normalisation


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
    tower: ImageModelTower,
    original: Original,
    file: GoldenFile,
    theirs: NDArray[np.float32],
    why: Sequence[str] = (),
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
