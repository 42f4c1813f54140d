"""From an image processor of transformers to the image spec.

A class may do more than its configuration says: the proof finds that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.refusals import checked_pictures
from mmalign_runtime.spec import ImageSpec, Interpolation
from mmalign_runtime.spec.image import Resize

Sides = tuple[int, int]
# How it is resized, to which sides, and to which before a crop.
Geometry = tuple[Resize, Sides, Sides]
Rgb = tuple[float, float, float]

_LONGEST_STRIP = 65_535  # as the image spec has it
# Attention compares every patch with every other: more do not fit into memory.
_MOST_PATCHES = 16_384
# Pillow's numbers for its filters, which configurations hold.
_FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
# Pixels of a tower's picture: no published tower takes a quarter of it.
_LONGEST_SIDE = 4_096
_SUPPORTED = "a size of height and width, or a shortest edge with a centred crop"


def image_spec(config: Mapping[str, object], options: SourceOptions) -> ImageSpec:
    """Return the spec of a processor's configuration, as `to_dict` gives it.

    Rounding is the library's, down, for sides and crops. Raises SourceError for what no spec says.
    """
    if not config.get("do_resize"):
        raise SourceError(f"the image processor does not resize; expected {_SUPPORTED}.")
    resize, size, before = _patches(config) if "max_num_patches" in config else _geometry(config)
    mean, std = _statistics(config)
    spec = ImageSpec(
        size=_one(size),
        resize=resize,
        shortest_edge=before[0] if resize in ("shortest_edge", "naflex") else 256,
        resize_size=_one(before) if resize == "resize_then_crop" else None,
        side_rounding="floor",
        crop_rounding="floor",
        interpolation=_interpolation(config),
        mean=mean,
        std=std,
    )
    return checked_pictures(spec, options, composites=bool(config.get("do_convert_rgb")))


def _patches(config: Mapping[str, object]) -> Geometry:
    """Return the mode, the (height, width) nearest to a square whose area holds all patches, and a patch's sides."""
    most, side = config.get("max_num_patches"), config.get("patch_size")
    if not isinstance(most, int) or not isinstance(side, int) or not (1 <= most <= _MOST_PATCHES and side >= 1):
        raise SourceError(
            f"the image processor cuts {most!r} patches of {side!r} pixels; expected whole numbers for "
            f"max_num_patches, up to {_MOST_PATCHES}, and patch_size."
        )
    num_rows = next(count for count in range(math.isqrt(most), 0, -1) if most % count == 0)
    size = (num_rows * side, most // num_rows * side)
    if max(size) > _LONGEST_STRIP:
        raise SourceError(
            f"the image processor cuts {most} patches of {side} pixels, which no picture with sides of at most "
            f"{_LONGEST_STRIP} pixels has. Take another max_num_patches, which has smaller divisors."
        )
    return "naflex", size, (side, side)


def _geometry(config: Mapping[str, object]) -> Geometry:
    """Return the mode, (height, width) of what comes out, and (height, width) or the shorter side before the crop."""
    size, crop = _sizes(config, "size"), _sizes(config, "crop_size") if config.get("do_center_crop") else {}
    cropped = (crop["height"], crop["width"]) if {"height", "width"} <= crop.keys() else None
    if set(size) == {"height", "width"}:
        resized = (size["height"], size["width"])
        if cropped is None or cropped == resized:
            return "squash", resized, resized
        return "resize_then_crop", cropped, resized
    if set(size) == {"shortest_edge"} and cropped is not None:
        return "shortest_edge", cropped, (size["shortest_edge"], size["shortest_edge"])
    raise SourceError(
        f"the image processor resizes to {size}, and crops to {crop or 'nothing'}; expected {_SUPPORTED}, so that "
        "every picture has one size."
    )


def _sizes(config: Mapping[str, object], name: str) -> dict[str, int]:
    found = config.get(name)
    if not isinstance(found, Mapping):
        raise SourceError(f"the image processor's {name} is {found!r}; expected sides by name.")
    sides = {str(side): value for side, value in found.items() if isinstance(value, int)}
    if wrong := {side: value for side, value in sides.items() if not 1 <= value <= _LONGEST_SIDE}:
        raise SourceError(
            f"the image processor's {name} has {wrong}; expected 1 to {_LONGEST_SIDE} pixels. Correct "
            "preprocessor_config.json, or fetch it again."
        )
    return sides


def _one(sides: Sides) -> int | Sides:
    return sides[0] if sides[0] == sides[1] else sides


def _interpolation(config: Mapping[str, object]) -> Interpolation:
    number = config.get("resample")
    if not isinstance(number, int) or number not in _FILTERS:
        raise SourceError(
            f"the image processor's filter (resample) is {number!r}; expected 2, bilinear, or 3, bicubic."
        )
    return _FILTERS[number]


def _statistics(config: Mapping[str, object]) -> tuple[Rgb, Rgb]:
    """Return mean and deviation of values in 0..1, whatever the processor multiplies, subtracts and divides by."""
    factor = _number(config, "rescale_factor") if config.get("do_rescale") else 1.0
    unit = 255 * factor
    mean, std = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize"):
        mean, std = _colours(config, "image_mean"), _colours(config, "image_std")
    if config.get("rescale_offset"):  # EfficientNet's: values from -1
        mean = [each + 1 for each in mean]
    if config.get("include_top"):  # EfficientNet's: divided twice
        std = [each * each for each in std]
    return _rgb([each / unit for each in mean]), _rgb([each / unit for each in std])


def _rgb(values: list[float]) -> Rgb:
    red, green, blue = values
    return red, green, blue


def _number(config: Mapping[str, object], name: str) -> float:
    found = config.get(name)
    if not isinstance(found, int | float) or not 0 < found < math.inf:
        raise SourceError(f"the image processor's {name} is {found!r}; expected a number above zero.")
    return float(found)


def _colours(config: Mapping[str, object], name: str) -> list[float]:
    try:
        found = list(msgspec.convert(config.get(name), Rgb, strict=False))
    except msgspec.ValidationError as error:
        raise SourceError(f"the image processor's {name} is {config.get(name)!r}; expected three numbers.") from error
    if not all(map(math.isfinite, found)):
        raise SourceError(f"the image processor's {name} is {found}; expected three finite numbers.")
    return found
