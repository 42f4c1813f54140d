"""Random weights as training leaves them: small steps on the skip path, and batch norms that know pictures.

Without the statistics, ALIGN's 55 blocks make all vectors alike. With every block's step as large as what it is added
to, a deep tower amplifies rounding until a picture is half a cosine from itself in float64 (ALIGN), or a flat one moves
by 1e-3 a component with another order of sums (MobileCLIP2-S0): such a tower is chaotic, as no trained one is, whose
residual blocks begin at a step of zero (Goyal et al. 2017) and stay small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmalign_export.golden import golden_photo

# What a block adds to its skip path, of what a norm gives.
STEP = 0.25
# Where parts of a photograph begin, in pixels.
_CORNERS = (0, 60, 120)


def settling_pictures() -> list[Image.Image]:
    """Return parts of a photograph, the same dithered and of one colour, and noise."""
    photo = golden_photo()
    parts = [photo.crop((x, y, x + photo.width // 2, y + photo.height // 2)) for x in _CORNERS for y in _CORNERS]
    drawn = np.random.default_rng(0).integers(0, 256, (len(parts), 8, 8, 3), np.uint8)
    dithered = [part.convert("1").convert("RGB") for part in parts]
    flat = [part.resize((1, 1)) for part in parts]
    return [*parts, *dithered, *flat, *(Image.fromarray(each).resize(photo.size) for each in drawn)]


@torch.no_grad()
def settle(model: nn.Module, look: Callable[[], object]) -> None:
    """Give a model's batch norms the statistics of the pictures that `look` runs through it; leave it evaluating."""
    model.eval()  # no dropout, which would move the statistics
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean of all that is seen
            norm.reset_running_stats()
            norm.train()
    look()
    model.eval()
