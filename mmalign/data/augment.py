"""Training-time augmentation of images (torchvision v2) and of captions.

Never used for evaluation or serving: their pixels come from the preprocessing graph.
Shapes: S image side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Annotated, cast

import msgspec
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from mmalign_runtime.image import Pixels
from mmalign_runtime.spec import ImageSpec, Rounding

_INTERPOLATION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
# Blur strength of SimCLR (Chen et al. 2020, appendix A), its kernel a tenth of the side.
_BLUR_SIGMA = (0.1, 2.0)

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class AugmentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training images are varied, and how a caption is drawn.

    Attributes:
        crop_scale: Least share of the area that a random resized crop keeps. 1.0 switches cropping off.
        horizontal_flip: Probability of a horizontal flip. Off by default, since captions say left and right.
        color_jitter: Strength x of the jitter: factors of brightness, contrast and saturation lie in [1 - x, 1 + x].
        grayscale: Probability of a conversion to grey.
        blur: Probability of a Gaussian blur.
        jpeg_oversampling: A JPEG is decoded at the smallest DCT scale (1/8, 1/4, 1/2 or 1) whose random crop has at
            least this many times the sides of `image.size`; 0 decodes in full. Unset, the scale is that of
            `image.jpeg_oversampling`, which is for the whole picture: a small crop of it may have fewer pixels than the
            tower sees.
        first_caption: Probability of a pair's first caption. Otherwise one of the others is drawn evenly.
    """

    crop_scale: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    horizontal_flip: Probability = 0.0
    color_jitter: Probability = 0.2
    grayscale: Probability = 0.05
    blur: Probability = 0.1
    jpeg_oversampling: Annotated[int, msgspec.Meta(ge=0)] | None = None
    first_caption: Probability = 0.5


class ImageAugment:
    """Augments one decoded image to pixel_values, the same for the same seed."""

    def __init__(self, config: AugmentConfig, spec: ImageSpec) -> None:
        self.config = config
        self.spec = spec
        self._interpolation = _INTERPOLATION[spec.interpolation]
        self._fit = v2.Compose(_resize(spec, self._interpolation))
        self._draw_crop = v2.RandomResizedCrop(spec.shape, (config.crop_scale, 1.0)) if config.crop_scale < 1 else None
        steps: list[torch.nn.Module] = []
        if config.horizontal_flip > 0:
            steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
        if config.color_jitter > 0:
            jitter = config.color_jitter
            steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
        if config.grayscale > 0:
            steps.append(v2.RandomGrayscale(config.grayscale))
        if config.blur > 0:
            kernel = max(3, min(spec.shape) // 10 | 1)
            steps.append(v2.RandomApply([v2.GaussianBlur(kernel, _BLUR_SIGMA)], config.blur))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(spec.mean), list(spec.std))]
        self._vary = v2.Compose(steps)

    def __call__(self, pixels: Pixels, seed: int, stored: tuple[int, int] | None = None) -> Tensor:
        """Return (3, S, S) float32 for (H, W, 3) uint8 RGB.

        `stored` is the (height, width) of a picture that was decoded at a smaller scale: its crop is the one that it
        would have in full. torchvision draws from torch's global state on the CPU, which is left as it was found.
        """
        image = torch.tensor(pixels).permute(2, 0, 1)  # (3, H, W)
        with _seeded(seed):
            if self._draw_crop is None:
                return cast("Tensor", self._vary(self._fit(image)))
            crop = self._crop(stored or pixels.shape[:2]).at_scale(pixels.shape[:2])
            return cast("Tensor", self._vary(crop.resized(image, self.spec.shape, self._interpolation)))

    def wanted(self, stored: tuple[int, int], seed: int) -> tuple[int, int]:
        """Return how many pixels (height, width) of a stored picture its crop needs of it, 0 where it needs all."""
        oversampling = self.config.jpeg_oversampling
        assert oversampling is not None, "asked only where it is set"
        if self._draw_crop is None:
            side = oversampling * max(self.spec.resized_shape)
            return side, side
        with _seeded(seed):
            crop = self._crop(stored)
        sides = zip(self.spec.shape, stored, (crop.height, crop.width), strict=True)
        height, width = (math.ceil(oversampling * side * whole / part) for side, whole, part in sides)
        return height, width

    def _crop(self, shape: tuple[int, int]) -> _Crop:
        assert self._draw_crop is not None
        drawn = self._draw_crop.make_params([torch.empty(1, *shape, device="meta")])
        return _Crop(shape, drawn["top"], drawn["left"], drawn["height"], drawn["width"])


class _Crop(msgspec.Struct, frozen=True):
    """A part of a picture of some (height, width)."""

    of: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    def at_scale(self, shape: tuple[int, int]) -> _Crop:
        """Return the same part of the picture at another scale, to the nearest pixel."""
        vertical, horizontal = (now / before for now, before in zip(shape, self.of, strict=True))
        top, bottom = (round(vertical * at) for at in (self.top, self.top + self.height))
        left, right = (round(horizontal * at) for at in (self.left, self.left + self.width))
        return _Crop(shape, top, left, max(1, bottom - top), max(1, right - left))

    def resized(self, image: Tensor, shape: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
        """Return it from (3, H, W), in another shape."""
        box = self.top, self.left, self.height, self.width
        return cast("Tensor", v2.functional.resized_crop(image, *box, list(shape), interpolation, antialias=True))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that would seed CUDA's generators too
        yield


def _resize(spec: ImageSpec, interpolation: InterpolationMode) -> list[torch.nn.Module]:
    if spec.resize == "longest_edge":
        return [_Fit(spec, interpolation)]
    side = spec.shortest_edge if spec.resize == "shortest_edge" else spec.resized_shape
    resize = v2.Resize(side, interpolation, antialias=True)
    return [resize] if spec.resize == "squash" else [resize, v2.CenterCrop(spec.shape)]


class _Fit(torch.nn.Module):
    """The picture into the spec's size with its ratio kept, centred, the rest filled."""

    def __init__(self, spec: ImageSpec, interpolation: InterpolationMode) -> None:
        super().__init__()
        self._spec = spec
        self._interpolation = interpolation

    def forward(self, image: Tensor) -> Tensor:
        """Return (3, H, W) for (3, h, w)."""
        spec, shape = self._spec, self._spec.shape
        scale = min(Fraction(side, seen) for side, seen in zip(shape, image.shape[-2:], strict=True))
        sides = [max(1, _rounded(seen * scale, spec.side_rounding)) for seen in image.shape[-2:]]
        fitted = v2.functional.resize(image, sides, self._interpolation, antialias=True)
        filled = torch.tensor(spec.fill, dtype=image.dtype)[:, None, None].repeat(1, *shape)
        margins = (Fraction(side - inner, 2) for side, inner in zip(shape, sides, strict=True))
        top, left = (_rounded(margin, spec.crop_rounding) for margin in margins)
        filled[:, top : top + sides[0], left : left + sides[1]] = fitted
        return filled


def _rounded(value: Fraction, rounding: Rounding) -> int:
    return round(value) if rounding == "half_even" else int(value)  # Python rounds a half to even
