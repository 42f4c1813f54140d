"""What every source gives: a model to export, the library's own pipeline to prove it against, and what was chosen.

Shapes: B batch, D embedding, H and W image sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.dual_model import DualModel
from mmalign_runtime.spec import Choice


class Original(Protocol):
    """The library's own pipeline, stage by stage, on the same weights: what an import is proven against."""

    @property
    def library(self) -> str:
        """The library and its version: "transformers 5.23.0"."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as its own tokenizer gives them, padded as it pads a text alone."""

    def pixel_values(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return pixel_values as its own processor makes them of pictures as Pillow opened them.

        (B, 3, H, W), or patches (B, N, 3 P^2 + 2) as mmalign_runtime.spec.ImageSpec describes them.
        """

    def image_vectors(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) as its own forward gives them. Their length need not be one."""

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (B, D) by its own tokenizer, padding and forward. Their length need not be one."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a source. Without an `original` (a training run) eager PyTorch on `model` is the reference.

    `choices` are what was decided that the weights do not say, and where it was read: `--explain` prints them.
    `resized_as_stored` says that the library resizes a picture in the mode that it is stored in, and makes RGB of it
    after that: palettes by nearest neighbours, and colours weighted by their alpha. `must_differ` says that golden
    vectors which are all alike are an error without an `original` too: a run may be exported before it has learned.
    """

    model: DualModel
    original: Original | None = None
    choices: tuple[Choice, ...] = ()
    resized_as_stored: bool = False
    must_differ: bool = False
