"""Images and texts to unit vectors: the runtime's front door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args, overload

from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.encoders import ImageEncoder, TextEncoder
from mmalign_runtime.errors import BundleError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.providers import Provider, resolve_provider
from mmalign_runtime.session import SessionOptions
from mmalign_runtime.spec import Modality, Precision
from mmalign_runtime.streaming import OnError, PartialBatch, StreamedItem, Vectors, gather, stream_batches
from mmalign_runtime.threads import available_threads

DEFAULT_BATCH_SIZE = 32

Encoder = TypeVar("Encoder")


class Embedder:
    """Turns images and texts into unit vectors of one space. Safe to call from many threads at once."""

    def __init__(self, bundle: Bundle, image: ImageEncoder | None, text: TextEncoder | None, info: RuntimeInfo) -> None:
        self.bundle = bundle
        self._image = image
        self._text = text
        self._info = info

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        provider: Provider = "auto",
        precision: Precision = "fp32",
        num_threads: int | None = None,
        towers: Sequence[Modality] = ("image", "text"),
        check_hashes: bool = True,
    ) -> Embedder:
        """Open a bundle and load the towers asked for.

        `num_threads` defaults to what the affinity mask and the container's quota allow. Raises BundleError (and its
        children) when the bundle cannot be used, ProviderError when the provider is not there.
        """
        if unknown := set(towers) - set(get_args(Modality)):
            raise ValueError(f"towers {sorted(unknown)} are not known; choose among {', '.join(get_args(Modality))}.")
        bundle = open_bundle(path, check_hashes=check_hashes)
        options = SessionOptions(resolve_provider(provider), num_threads or available_threads())
        image = ImageEncoder(bundle, precision, options) if "image" in towers else None
        text = TextEncoder(bundle, precision, options) if "text" in towers else None
        sessions = [("image", image.session)] if image else []
        sessions += [("text", text.session)] if text else []
        info = RuntimeInfo(
            bundle=str(bundle.path),
            space_id=bundle.spec.space_id,
            variant_id=bundle.spec.variant_id(precision),
            embed_dim=bundle.spec.embed_dim,
            precision=precision,
            provider_asked=provider,
            provider=options.provider,
            num_threads=options.num_threads,
            towers=tuple(TowerInfo(name, session.path.name, session.placement()) for name, session in sessions),
        )
        return cls(bundle, image, text, info)

    @property
    def space_id(self) -> str:
        """The id of the space that every vector of this embedder lives in."""
        return self.bundle.spec.space_id

    @property
    def embed_dim(self) -> int:
        """D, the length of every vector."""
        return self.bundle.spec.embed_dim

    @property
    def logit_scale(self) -> float:
        """The scale that training gave to cosines before the softmax (already exponentiated)."""
        return self.bundle.spec.logit_scale

    @property
    def image(self) -> ImageEncoder:
        """The image side. Raises BundleError when it was not loaded."""
        return _loaded(self._image, "image")

    @property
    def text(self) -> TextEncoder:
        """The text side. Raises BundleError when it was not loaded."""
        return _loaded(self._text, "text")

    def info(self) -> RuntimeInfo:
        """Say what was chosen: provider, precision, threads, and where the nodes went."""
        return self._info

    @overload
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int = ..., on_error: Literal["raise"] = ...
    ) -> Vectors: ...
    @overload
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int = ..., on_error: Literal["skip"]
    ) -> PartialBatch: ...
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Vectors | PartialBatch:
        """Embed images (paths, bytes, files, PIL images, (H, W, 3) uint8 RGB arrays) to (N, D) float32, unit length.

        `on_error="raise"` raises the first ItemError, which names the item; `"skip"` embeds the rest and returns a
        PartialBatch. An empty list gives (0, D).
        """
        _reject_single(items, "items")
        return gather(self.stream_images(items, batch_size=batch_size, on_error=on_error), self.embed_dim, on_error)

    @overload
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int = ..., on_error: Literal["raise"] = ...
    ) -> Vectors: ...
    @overload
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int = ..., on_error: Literal["skip"]
    ) -> PartialBatch: ...
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Vectors | PartialBatch:
        """Embed texts to (N, D) float32, unit length; truncated to the bundle's context length, the empty text allowed.

        `on_error` as in `encode_image`. An empty list gives (0, D).
        """
        _reject_single(texts, "texts")
        return gather(self.stream_texts(texts, batch_size=batch_size, on_error=on_error), self.embed_dim, on_error)

    def stream_images(
        self, items: Iterable[ImageItem], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of images, one batch in memory at a time, yielding them in order."""
        return stream_batches(items, self.image.pixel_values, self.image.vectors, batch_size, on_error)

    def stream_texts(
        self, texts: Iterable[str], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of texts, one batch in memory at a time, yielding them in order."""
        return stream_batches(texts, self.text.checked, self.text.vectors, batch_size, on_error)


def _loaded(encoder: Encoder | None, tower: Modality) -> Encoder:
    if encoder is None:
        raise BundleError(f"the {tower} tower was not loaded: add {tower!r} to `towers` of Embedder.load.")
    return encoder


def _reject_single(items: object, name: str) -> None:
    if isinstance(items, str | bytes | Path):
        raise TypeError(f"{name} is a single {type(items).__name__}, expected a list: pass [{name}].")
