"""The limits of a spec against what a header promises: all that is checked before a pixel is decoded."""

from __future__ import annotations

from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.spec import ImageLimits, ImageSpec

_SCALE = "Scale it down."


def check_bytes(size_bytes: int, limits: ImageLimits) -> None:
    """Refuse a file by its length."""
    if size_bytes > limits.max_bytes:
        raise Refusal(
            "open", f"{size_bytes} bytes are more than the {limits.max_bytes} that the bundle allows. Scale it down."
        )


def check_size(size: tuple[int, int], spec: ImageSpec) -> None:
    """Refuse a picture by its width and height, at their stored size and as the spec would resize them."""
    limits, (width, height) = spec.limits, size
    seen = f"{width} x {height}"
    if width < 1 or height < 1:
        raise Refusal("decode", f"{seen} has no pixels, expected at least 1 x 1. Replace it.")
    if width * height > limits.max_pixels:
        raise Refusal("decode", f"{seen} is more than the {limits.max_pixels} pixels that the bundle allows. {_SCALE}")
    if max(size) > limits.max_side:
        raise Refusal("decode", f"{seen} has a side over the {limits.max_side} that the bundle allows. {_SCALE}")
    if max(size) > limits.max_aspect_ratio * min(size):
        ratio = max(size) / min(size)
        raise Refusal(
            "decode", f"{seen} is too thin: {ratio:.0f} to 1, over {limits.max_aspect_ratio:g} to 1. Crop it."
        )
    # Scaling by the shorter side lets a thin strip grow. At the default limits the aspect ratio bounds that; at a large
    # `shortest_edge`, or where a caller lifted the ratio, only this does.
    resized = spec.shortest_edge**2 * max(size) // min(size)
    if spec.resize == "shortest_edge" and resized > limits.max_pixels:
        raise Refusal(
            "decode", f"{seen} is too thin: resized, it has {resized} pixels, over {limits.max_pixels}. Crop it."
        )
