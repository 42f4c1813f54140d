"""What is embedded over and over: items that travel with every bundle, or one's own, those that fail sorted out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """An item that could not be embedded and was left out of the measurement."""

    kind: Modality
    source: str
    stage: str
    reason: str


class Workload:
    """The items of one kind, taken in turn and from the start again, through the embedder's public path."""

    def __init__(self, kind: Modality, num_items: int, encode: Callable[[Sequence[int], int], object]) -> None:
        """`encode` embeds the items at some positions, in batches of a size."""
        self.kind: Modality = kind
        self.num_items = num_items
        self._encode = encode

    def ask(self, number: int, *, num_items: int = 1, batch_size: int = 1) -> None:
        """Embed `num_items` items from position `number` on."""
        self._encode([(number + step) % self.num_items for step in range(num_items)], batch_size)


def image_work(embedder: Embedder, images: Sequence[ImageItem]) -> Workload:
    """Return the workload of images, each of which can be embedded."""
    return Workload("image", len(images), partial(_encode_images, embedder, images))


def text_work(embedder: Embedder, texts: Sequence[str]) -> Workload:
    """Return the workload of texts, each of which can be embedded."""
    return Workload("text", len(texts), partial(_encode_texts, embedder, texts))


def usable_images(
    embedder: Embedder, images: Sequence[ImageItem], on_error: OnError
) -> tuple[list[ImageItem], list[Skipped]]:
    """Embed every image once; return those that can be, and what was wrong with the others.

    Raises ItemError for the first that cannot be where `on_error` is "raise", InputError when none can be.
    """
    if on_error == "raise":
        embedder.encode_image(images)
        return list(images), []
    found = embedder.encode_image(images, on_error="skip")
    skipped = [Skipped(kind="image", source=e.source, stage=e.stage, reason=e.reason) for e in found.errors]
    _require_some(len(found.indices), skipped)
    return [images[index] for index in found.indices], skipped


def usable_texts(embedder: Embedder, texts: Sequence[str], on_error: OnError) -> tuple[list[str], list[Skipped]]:
    """Embed every text once, as `usable_images` does images."""
    if on_error == "raise":
        embedder.encode_text(texts)
        return list(texts), []
    found = embedder.encode_text(texts, on_error="skip")
    skipped = [Skipped(kind="text", source=e.source, stage=e.stage, reason=e.reason) for e in found.errors]
    _require_some(len(found.indices), skipped)
    return [texts[index] for index in found.indices], skipped


def golden_images(bundle: Bundle) -> list[FileSource]:
    """Return the images that travel with a bundle: real ones, at hand on every machine."""
    return [bundle.source(case.file) for case in load_golden(bundle).images]


def golden_texts(bundle: Bundle) -> list[str]:
    """Return the texts that travel with a bundle."""
    return [case.text for case in load_golden(bundle).texts]


def _encode_images(embedder: Embedder, images: Sequence[ImageItem], positions: Sequence[int], batch_size: int) -> None:
    embedder.encode_image([images[position] for position in positions], batch_size=batch_size)


def _encode_texts(embedder: Embedder, texts: Sequence[str], positions: Sequence[int], batch_size: int) -> None:
    embedder.encode_text([texts[position] for position in positions], batch_size=batch_size)


def _require_some(num_good: int, skipped: Sequence[Skipped]) -> None:
    if num_good == 0:
        first = skipped[0]
        raise InputError(
            f"none of {len(skipped)} {first.kind}s can be embedded, the first ({first.source}) fails in {first.stage}: "
            f"{first.reason} Name others."
        )
