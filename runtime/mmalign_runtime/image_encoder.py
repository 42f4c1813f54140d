"""The image side of a bundle, stage by stage: what the embedder runs, and what verify and bench look into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.engines import open_session
from mmalign_runtime.engine.host_memory import HostMemory
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.session import Feeds, SessionOptions
from mmalign_runtime.freed_memory import give_back_freed_memory
from mmalign_runtime.image import DetachedImage, ImageItem, Pixels, decode_detached, detach_image, jpeg_decoder
from mmalign_runtime.spec import ImageLimits, ImageTower
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.unit_vectors import UnitVectors

INPUT_NAME = "pixels"
# Decoding an image of so many values (5.6 megapixels) takes a hundred times what giving its memory back does.
_LARGE = 2**24

# On a CPU what a run keeps of more images leaves the caches: measured on 2 cores, with the demo's tower and the
# reference's (docs/decisions.md). Another device takes whole batches.
_MOST_IMAGES = 8


class Preprocessor:
    """Runs image_preprocess.onnx on the CPU: (H, W, 3) uint8 RGB -> (1, 3, S, S) float32.

    With onnxruntime, whatever engine the towers have: the pixels are part of the bundle.
    What decoding and preparing a large image needed is given back to the system, not kept for the next one.
    """

    def __init__(self, source: FileSource, pool: Pool) -> None:
        # The graph is many short steps: a second thread gains next to nothing. Every image has another shape, so a
        # memory plan made for the last one is of no use for the next, and memory kept for it may be hundreds of MB. One
        # image does not fill the pool, so it does not wait for its turn: it is prepared beside a tower's run.
        options = SessionOptions(
            "cpu", pool.with_threads(1), reuse_memory_plan=False, keep_memory=False, takes_turns=False
        )
        self.session = OnnxSession(source, "the preprocessing graph", options)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Resize, crop and normalise one image, on the calling thread alone. Many threads may call at once."""
        pixel_values = self.session.run({INPUT_NAME: pixels})  # (1, 3, S, S)
        if pixels.size > _LARGE:
            give_back_freed_memory()
        return pixel_values

    def close(self) -> None:
        """Let go of the graph."""
        self.session.close()


class ImageEncoder:
    """The image side: decode, preprocess, tower. `limits` take the place of the bundle's own, when given."""

    graph = "image"

    def __init__(self, bundle: Bundle, options: SessionOptions, limits: ImageLimits | None = None) -> None:
        found = bundle.spec.tower("image", ImageTower)
        self.inputs = found.inputs
        self._checked: Callable[[Vectors], Vectors] = UnitVectors(
            bundle.spec.embed_dim, f"{bundle.path}: the image tower"
        )
        self.spec = msgspec.structs.replace(found.spec, limits=limits) if limits else found.spec
        self.preprocess = Preprocessor(bundle.source(found.preprocess), options.pool)
        self.session = open_session(bundle, self.graph, found.inputs.names(), options)
        # With one thread on the CPU there is nothing that preparing could overlap with.
        is_alone = options.provider == "cpu" and options.pool.num_threads == 1
        self._memory = HostMemory(options.provider) if options.provider == "cuda" else None
        self.jpeg_decoder = jpeg_decoder()
        self.num_workers = 0 if is_alone else options.pool.num_threads
        self.most_at_once = _MOST_IMAGES if options.provider == "cpu" else None

    def detach(self, item: ImageItem, index: int) -> DetachedImage:
        """Read what only the caller's thread may read of an item. Raises ItemError."""
        return detach_image(item, self.spec, index=index)

    def empty(self, num_images: int) -> NDArray[np.float32]:
        """Return room for B prepared images, (B, 3, H, W), of patches (B, N, 3 P^2 + 2)."""
        shape = (num_images, *self.spec.values_shape)
        return np.empty(shape, np.float32) if self._memory is None else self._memory.empty(shape)

    def prepare(self, detached: DetachedImage, index: int, room: NDArray[np.float32]) -> None:
        """Decode and preprocess one image into its room, (3, H, W). Raises ItemError."""
        room[...] = self.preprocess(decode_detached(detached, self.spec, index=index))[0]

    def feeds(self, items: Iterable[ImageItem]) -> Iterator[Feeds]:
        """Yield what the tower is fed with for each image alone. Raises ItemError."""
        for index, item in enumerate(items):
            room = self.empty(1)
            self.prepare(self.detach(item, index), index, room[0])
            yield {self.inputs.pixel_values: room}

    def vectors(self, prepared: Sequence[NDArray[np.float32]]) -> Vectors:
        """Return (B, D) for B prepared images, (1, 3, H, W) each; as many go through the tower at once as suit it."""
        size = self.most_at_once or len(prepared)
        found = [self.tower(np.concatenate(prepared[at : at + size])) for at in range(0, len(prepared), size)]
        return np.concatenate(found)

    def tower(self, pixel_values: NDArray[np.float32]) -> Vectors:
        """Return (B, D) for pixel_values (B, 3, H, W)."""
        return self._checked(self.session.run({self.inputs.pixel_values: pixel_values}))

    def close(self) -> None:
        """Let go of the tower and the preprocessing graph."""
        self.session.close()
        self.preprocess.close()
