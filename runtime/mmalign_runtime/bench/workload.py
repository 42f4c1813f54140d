"""What is embedded over and over: items that travel with every bundle, or one's own, those that fail sorted out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError, PartialBatch


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """An item that could not be embedded and was left out of the measurement."""

    kind: Modality
    source: str
    stage: str
    reason: str


class Workload(msgspec.Struct, frozen=True):
    """The items of one kind, taken in turn and from the start again, through the embedder's public path."""

    kind: Modality
    items: Sequence[ImageItem]
    encode: Callable[..., object]

    def ask(self, number: int, *, num_items: int = 1, batch_size: int = 1) -> None:
        """Embed `num_items` items from position `number` on."""
        asked = [self.items[(number + step) % len(self.items)] for step in range(num_items)]
        self.encode(asked, batch_size=batch_size)


def workload(embedder: Embedder, kind: Modality, items: Sequence[ImageItem]) -> Workload:
    """Return the workload of items, each of which can be embedded. Texts are strings."""
    return Workload(kind, items, embedder.encode_image if kind == "image" else embedder.encode_text)


def usable_items(
    embedder: Embedder, images: Sequence[ImageItem], texts: Sequence[str], on_error: OnError
) -> tuple[dict[Modality, Sequence[ImageItem]], tuple[Skipped, ...]]:
    """Embed every item once; return those of each tower that can be embedded, and what was wrong with the others.

    Raises ItemError for the first that cannot where `on_error` is "raise", InputError when there is none or none can.
    """
    given: dict[Modality, Sequence[ImageItem]] = {"image": images, "text": texts}
    good: dict[Modality, Sequence[ImageItem]] = {}
    skipped: list[Skipped] = []
    for kind in (each for each in given if each in embedder.towers):
        items = given[kind]
        if not items:
            raise InputError(f"seen 0 {kind}s, expected at least one to measure.")
        found = workload(embedder, kind, items).encode(items, on_error=on_error)
        if isinstance(found, PartialBatch):
            skipped += _skipped(kind, found)
            items = [items[index] for index in found.indices]
        good[kind] = items
    return good, tuple(skipped)


def _skipped(kind: Modality, found: PartialBatch) -> list[Skipped]:
    """Return the items that cannot be embedded. Raises InputError where no other is left."""
    skipped = [Skipped(kind=kind, source=e.source, stage=e.stage, reason=e.reason) for e in found.errors]
    if len(found.indices) == 0:
        first = skipped[0]
        raise InputError(
            f"none of {len(skipped)} {kind}s can be embedded, the first ({first.source}) fails in {first.stage}: "
            f"{first.reason} Name others."
        )
    return skipped


def golden_images(bundle: Bundle) -> list[FileSource]:
    """Return the images that travel with a bundle: real ones, at hand on every machine."""
    return [bundle.source(case.file) for case in load_golden(bundle).images]


def golden_texts(bundle: Bundle) -> list[str]:
    """Return the texts that travel with a bundle."""
    return [case.text for case in load_golden(bundle).texts]
