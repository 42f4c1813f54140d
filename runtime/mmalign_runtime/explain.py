"""Where a text looks: the weights of an image's regions, drawn over the picture as the model sees it.

With Pillow alone. The picture is what the preprocessing graph gives (resized, cropped or filled as the bundle says), so
that a region lies where its weight is drawn.
Shapes: H and W sides of the model's picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.spec import ImageSpec, ImageTower

if TYPE_CHECKING:
    from mmalign_runtime.image import ImageItem

_HEAT = (214, 39, 40)  # red, over a picture turned grey
_OPACITY = 0.75  # of the heat where a text looks most
_SIDE = 448  # of the drawing's shorter side, so that a picture of 224 pixels can be looked at


class Explanation(msgspec.Struct, frozen=True):
    """`weights` (rows, columns) that sum to 1, `score` of the pair, and `cosine` of the two vectors alone.

    `picture` is what the model sees, (H, W, 3) uint8.
    """

    weights: NDArray[np.float32]
    score: float
    cosine: float
    picture: NDArray[np.uint8]

    def draw(self) -> Image.Image:
        """Return the picture in grey, and red where the text looks: the more, the higher the weight."""
        height, width = self.picture.shape[:2]
        scale = max(1, round(_SIDE / min(height, width)))
        size = width * scale, height * scale
        grey = Image.fromarray(self.picture).convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC)
        share = self.weights / self.weights.max()
        heat = Image.fromarray((share * 255 * _OPACITY).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        return Image.composite(Image.new("RGB", size, _HEAT), grey, heat)


def explain(embedder: BaseEmbedder, image: ImageItem, text: str) -> Explanation:
    """Return where in an image a text looks.

    Raises ItemError for an image that cannot be read, and BundleError for a bundle without an attention.
    """
    attention = embedder.attention
    (feeds,) = attention.images.feeds([image])
    (pixel_values,) = (np.asarray(each, np.float32) for each in feeds.values())  # (1, 3, H, W)
    tokens = attention.images.tower(pixel_values)  # (1, 1 + N, D)
    vector = embedder.encode_text([text])  # (1, D)
    seen = attention.attend(vector, tokens)
    spec = embedder.bundle.spec.tower("image", ImageTower).spec
    cosine = float(vector[0] @ tokens[0, 0])
    return Explanation(seen.weights[0, 0], float(seen.scores[0, 0]), cosine, _picture(pixel_values[0], spec))


def _picture(pixel_values: NDArray[np.float32], spec: ImageSpec) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 for pixel_values (3, H, W): the normalisation undone."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    levels = (pixel_values.transpose(1, 2, 0) * std + mean) * 255  # (H, W, 3)
    return levels.round().clip(0, 255).astype(np.uint8)
