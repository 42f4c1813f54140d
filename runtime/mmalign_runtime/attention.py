"""The second stage of a search: the regions of images, and what texts make of them.

Its graphs are computed in float32 whatever precision the towers have: they see a few candidates.
Shapes: B batch, T texts, I images, N regions, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.arguments import reject_single
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.engines import open_session
from mmalign_runtime.engine.session import Session, SessionOptions
from mmalign_runtime.errors import BundleError, EngineError, InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.image_stream import stream_images
from mmalign_runtime.spec import REGIONS, SCORES, Attention, ImageLimits
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.unit_vectors import UnitVectors

_BATCH = 8  # images that go through the graph together


class Attended(msgspec.Struct, frozen=True):
    """`scores` (T, I), higher is nearer, and `weights` (T, I, rows, columns), what a text looks at: they sum to 1."""

    scores: NDArray[np.float32]
    weights: NDArray[np.float32]

    def scores_and_weights(self) -> NDArray[np.float32]:
        """Return (T, I, 1 + N): what the graph gave, each score before its weights."""
        return np.concatenate([self.scores[..., None], self.weights.reshape(*self.scores.shape, -1)], axis=-1)


class RegionEncoder(ImageEncoder):
    """The image side up to the regions: decode, preprocess, and the graph that gives tokens."""

    graph = REGIONS

    def __init__(self, bundle: Bundle, options: SessionOptions, limits: ImageLimits | None = None) -> None:
        super().__init__(bundle, options, limits)
        self._unit = UnitVectors(bundle.spec.embed_dim, f"{bundle.path}: the graph of regions")
        self._num_tokens = attention_of(bundle).num_tokens
        self._checked = self._check

    def _check(self, tokens: Vectors) -> Vectors:
        """Return tokens (B, 1 + N, D) themselves. Raises EngineError unless they are that, of unit length."""
        if tokens.ndim != 3 or tokens.shape[1] != self._num_tokens:
            raise EngineError(
                f"the graph of regions gave {tokens.shape}, expected (B, {self._num_tokens}, D). Export again."
            )
        self._unit(tokens.reshape(-1, tokens.shape[2]))
        return tokens


class RegionAttention:
    """What `Embedder.attention` gives: tokens of images, and the scores of texts against them."""

    def __init__(self, bundle: Bundle, options: SessionOptions, limits: ImageLimits | None = None) -> None:
        self.spec = attention_of(bundle)
        exact = msgspec.structs.replace(options, precision="fp32")
        self.images = RegionEncoder(bundle, exact, limits)
        self._names = self.spec.text_embeds, self.spec.image_tokens
        self._embed_dim = bundle.spec.embed_dim
        some = msgspec.structs.replace(exact, reuse_memory_plan=False)  # texts and images are never as many again
        self.session: Session = open_session(bundle, SCORES, self._names, some)

    def encode_regions(self, items: Iterable[ImageItem]) -> NDArray[np.float32]:
        """Return the tokens (I, 1 + N, D) of images, float32 of unit length: each image's vector, then its regions.

        Items as `Embedder.encode_image` takes them. Raises ItemError, which names the item.
        """
        reject_single(items, "items")
        found = [item.vector for item in stream_images(items, self.images, _BATCH, "raise")]
        none = np.empty((0, self.spec.num_tokens, self._embed_dim), np.float32)
        return np.stack([each for each in found if each is not None]) if found else none

    def attend(self, text_embeds: NDArray[np.float32], image_tokens: NDArray[np.float32]) -> Attended:
        """Score texts, vectors (T, D) of `encode_text`, against images, tokens (I, 1 + N, D) of `encode_regions`.

        Raises InputError for other shapes.
        """
        expected = (self.spec.num_tokens, self._embed_dim)
        if text_embeds.ndim != 2 or text_embeds.shape[1:] != expected[1:] or image_tokens.shape[1:] != expected:
            raise InputError(
                f"text_embeds have shape {text_embeds.shape} and image_tokens {image_tokens.shape}, expected "
                f"(T, {expected[1]}) and (I, {expected[0]}, {expected[1]}). Take those of this bundle."
            )
        shape = len(text_embeds), len(image_tokens), self.spec.num_tokens
        attended = np.empty(shape, np.float32)
        if attended.size:
            attended = self.session.run(dict(zip(self._names, (text_embeds, image_tokens), strict=True)))
        weights = attended[..., 1:].reshape(*shape[:2], self.spec.rows, self.spec.columns)
        return Attended(attended[..., 0], weights)

    def close(self) -> None:
        """Let go of both graphs, and of the preprocessing."""
        self.images.close()
        self.session.close()


def attention_of(bundle: Bundle) -> Attention:
    """Return what a bundle says of its second stage. Raises BundleError when it has none."""
    if bundle.spec.attention is None:
        raise BundleError(
            f"{bundle.path} has no attention, so nothing can be reranked or explained with it. Train with "
            "model.attention.weight above 0, and export again."
        )
    return bundle.spec.attention
