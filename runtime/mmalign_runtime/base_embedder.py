"""Images and texts to unit vectors: a bundle with its towers, not verified.

Verification runs these and stands above them; `Embedder`, which users load, stands above verification.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeVar, Unpack, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.arguments import as_count, as_limits, check_towers, reject_single
from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.config import ComputePrecision, RuntimeConfig, RuntimeFields, configured
from mmalign_runtime.engine.engines import check_supported, find_engine, resolve_options
from mmalign_runtime.engine.session import Session, SessionOptions
from mmalign_runtime.errors import BundleError, EmbedderStateError, PrefixError
from mmalign_runtime.image_stream import stream_images
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.names import as_text
from mmalign_runtime.once import Once
from mmalign_runtime.prefixes import declared_dim, prefix_of, prefix_space_id
from mmalign_runtime.spec import ImageLimits, Modality, Similarity
from mmalign_runtime.streaming import OnError, PartialBatch, StreamedItem, Vectors, gather
from mmalign_runtime.text_stream import stream_texts

if TYPE_CHECKING:
    from mmalign_runtime.attention import RegionAttention
    from mmalign_runtime.clipping import ClippedTensor
    from mmalign_runtime.image import ImageItem
    from mmalign_runtime.image_encoder import ImageEncoder
    from mmalign_runtime.text_encoder import TextEncoder

Encoder = TypeVar("Encoder", "ImageEncoder", "TextEncoder", "RegionAttention")
Kind = TypeVar("Kind", bound="BaseEmbedder")


class BaseEmbedder:
    """Turns images and texts into unit vectors of one space. `Embedder` says how it may be used."""

    def __init__(
        self,
        bundle: Bundle,
        config: RuntimeConfig | None = None,
        *,
        towers: Sequence[Modality] = ("image", "text"),
        image_limits: ImageLimits | None = None,
    ) -> None:
        """Take an opened bundle; towers are loaded when first used. `Embedder.load` is the usual way in."""
        check_towers(towers)
        limits = as_limits(image_limits)
        self.config = configured(config, {})
        resolved = resolve_options(self.config)
        self.options = options = msgspec.structs.replace(resolved, dim=declared_dim(bundle.spec, self.config.dim))
        self.engine = find_engine(options.engine)
        for tower in towers:
            artifact = self.engine.artifact(bundle.spec, tower, options.precision)
            check_supported(artifact)
        self.bundle = bundle
        self.precision: ComputePrecision = options.precision
        self.towers = tuple(towers)
        # No reference to `self`: an embedder that is dropped must give its memory back at once, not when cycles are.
        self._image = Once(lambda: _image_encoder(bundle, options, limits))
        self._text = Once(lambda: _text_encoder(bundle, options))
        self._attention = Once(lambda: _region_attention(bundle, options, limits))
        self._is_closed = False
        self._process_id = os.getpid()

    def load_towers(self) -> None:
        """Load every tower that was asked for and is not loaded yet."""
        for tower in self.towers:
            getattr(self, tower)  # the property of its name loads it

    def close(self) -> None:
        """Give back the memory of towers and attention; using the embedder afterwards raises EmbedderStateError."""
        self._is_closed = True
        for encoder in (self._image.made, self._text.made, self._attention.made):
            if encoder is not None:
                encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def space_id(self) -> str:
        """The id of the space that every vector of this embedder lives in; prefixes have one of their own."""
        return prefix_space_id(self.bundle.spec.space_id, self.options.dim)

    @property
    def embed_dim(self) -> int:
        """D, the length of every vector."""
        return self.options.dim or self.bundle.spec.embed_dim

    @property
    def similarity(self) -> Similarity:
        """What training made of a cosine: the logit `scale * cosine + bias`, for a softmax or a sigmoid."""
        return self.bundle.spec.similarity

    @property
    def logit_scale(self) -> float:
        """The scale that training gave to cosines (already exponentiated); `similarity` has the rest of it."""
        return self.similarity.scale

    @property
    def variant_id(self) -> str:
        """The id of the files of this precision and of how they are computed, which make the vectors' last digits."""
        return self.engine.variant_id(self.bundle.spec, self.precision)

    @property
    def image(self) -> ImageEncoder:
        """The image side. Raises BundleError when it is not among the towers asked for."""
        self._check_usable("image")
        encoder = self._image.get()
        return self._still_open(encoder)

    @property
    def text(self) -> TextEncoder:
        """The text side. Raises BundleError when it is not among the towers asked for."""
        self._check_usable("text")
        encoder = self._text.get()
        return self._still_open(encoder)

    @property
    def attention(self) -> RegionAttention:
        """The second stage of a search: regions of images, and texts that look at them. Loaded when first used.

        Raises BundleError when the bundle has none, PrefixError for an embedder of prefixes.
        """
        self._check_process()
        if self.options.dim is not None:
            raise PrefixError(
                f"the attention looks at regions with whole vectors, and this embedder gives their first "
                f"{self.options.dim} components. Load it without dim; to rerank, search vectors that were embedded "
                "without it too."
            )
        return self._still_open(self._attention.get())

    def whole(self) -> Self:
        """Return an embedder of whole vectors that shares these towers: what golden cases hold is whole."""
        same = object.__new__(type(self))
        vars(same).update(vars(self))
        same.config = msgspec.structs.replace(self.config, dim=None)
        same.options = msgspec.structs.replace(self.options, dim=None)
        return same

    def info(self) -> RuntimeInfo:
        """Say what was chosen: engine, provider and its options, precision, threads, and where the nodes went."""
        if self._is_closed:
            raise EmbedderStateError("this embedder was closed. Load it again.")
        loaded = [("image", self._image.made), ("text", self._text.made)]
        return RuntimeInfo(
            **self.options.fields(),
            bundle=as_text(self.bundle.path),
            space_id=self.space_id,
            variant_id=self.variant_id,
            embed_dim=self.embed_dim,
            engine_version=self.engine.version(),
            provider_asked=self.config.provider,
            num_runs=self.options.pool.num_runs,
            jpeg_decoder=None if self._image.made is None else self._image.made.jpeg_decoder,
            towers=tuple(_tower_info(name, encoder.session) for name, encoder in loaded if encoder is not None),
        )

    @overload
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int | None = ..., on_error: Literal["raise"] = ...
    ) -> Vectors: ...
    @overload
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int | None = ..., on_error: Literal["skip"]
    ) -> PartialBatch: ...
    def encode_image(
        self, items: Sequence[ImageItem], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Vectors | PartialBatch:
        """Embed images (paths, files, bytes, PIL images, (H, W, 3) uint8 RGB arrays) to (N, D) float32, unit length.

        `on_error="raise"` raises the first ItemError, which names the item; `"skip"` embeds the rest and returns a
        PartialBatch. An empty list gives (0, D).
        """
        return gather(self.stream_images(items, batch_size=batch_size, on_error=on_error), self.embed_dim, on_error)

    @overload
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int | None = ..., on_error: Literal["raise"] = ...
    ) -> Vectors: ...
    @overload
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int | None = ..., on_error: Literal["skip"]
    ) -> PartialBatch: ...
    def encode_text(
        self, texts: Sequence[str], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Vectors | PartialBatch:
        """Embed texts to (N, D) float32, unit length; truncated to the bundle's context length, the empty text allowed.

        `on_error` as in `encode_image`. An empty list gives (0, D).
        """
        return gather(self.stream_texts(texts, batch_size=batch_size, on_error=on_error), self.embed_dim, on_error)

    def stream_images(
        self, items: Iterable[ImageItem], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of images, yielding them in order.

        Two batches are in memory at a time: threads prepare one while the tower runs on the other. Items are taken in
        the caller's thread, at most two batches ahead; whoever stops asking stops the threads.
        """
        reject_single(items, "items")
        size = as_count(self.config.image_batch_size if batch_size is None else batch_size, "batch_size")
        return self._prefixes(stream_images(items, self.image, size, on_error))

    def stream_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of texts, yielding them in order.

        A window of texts is in memory at a time, tokenized at once and run by length: 16 batches of them, or fewer
        where they are long. With a `batch_size` of 1 each text is run as it comes.
        """
        reject_single(texts, "texts")
        size = as_count(self.config.text_batch_size if batch_size is None else batch_size, "batch_size")
        return self._prefixes(stream_texts(texts, self.text, size, on_error))

    def clipping(
        self, *, images: Sequence[ImageItem] = (), texts: Sequence[str] = ()
    ) -> dict[Modality, tuple[ClippedTensor, ...]]:
        """Count how often these items leave the ranges of the int8 towers, of each kind that is given.

        Returns every range with its shares (0..1) at calibration and on evaluation pairs, and `seen` on these items. It
        is a measurement: each item is run once, alone, on the CPU. Raises BundleError when the bundle keeps nothing to
        count with, ItemError as `encode_image` does.
        """
        from mmalign_runtime.clipping import count_clipping

        found: dict[Modality, tuple[ClippedTensor, ...]] = {}
        if images:
            found["image"] = count_clipping(self.bundle, "image", self.image.feeds(images))
        if texts:
            found["text"] = count_clipping(self.bundle, "text", self.text.feeds(texts))
        return found

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return (N,) which texts are longer than the bundle's context length, and lose their end before the tower."""
        reject_single(texts, "texts")
        return self.text.tokenizer.encode(texts).truncated

    def __reduce__(self) -> NoReturn:
        """Raise EmbedderStateError: sessions and threads are of one process."""
        raise EmbedderStateError("an embedder cannot be pickled or copied. Load it in each process that embeds.")

    def _prefixes(self, stream: Iterator[StreamedItem]) -> Iterator[StreamedItem]:
        dim = self.options.dim
        return stream if dim is None else (_prefix(item, dim) for item in stream)

    def _still_open(self, encoder: Encoder) -> Encoder:
        if self._is_closed:  # while it was loaded
            encoder.close()
            raise EmbedderStateError("this embedder was closed. Load it again.")
        return encoder

    def _check_usable(self, tower: Modality) -> None:
        self._check_process()
        if tower not in self.towers:
            raise BundleError(f"the {tower} tower was not loaded: add {tower!r} to `towers` of Embedder.load.")

    def _check_process(self) -> None:
        if self._process_id != os.getpid():  # before any lock: in a fork, the thread that holds it is not there
            raise EmbedderStateError(
                f"this embedder belongs to process {self._process_id}, and this is a fork of it, without its threads. "
                "Load the Embedder after the fork, or start workers with multiprocessing's 'spawn'."
            )
        if self._is_closed:
            raise EmbedderStateError("this embedder was closed. Load it again.")


def open_embedder(
    kind: type[Kind],
    path: str | Path,
    config: RuntimeConfig | None,
    *,
    profile: str | Path | None,
    towers: Sequence[Modality],
    check_hashes: bool,
    image_limits: ImageLimits | None = None,
    **fields: Unpack[RuntimeFields],
) -> Kind:
    """Open a bundle as `Embedder.load` does, with its arguments and errors; towers are loaded when first used."""
    if config is not None and profile is not None:
        raise ValueError("config and profile were both given, expected one. Name the fields that win over a profile.")
    configured(config, fields)  # refused before the bundle is read
    bundle = open_bundle(path, check_hashes=check_hashes)
    base = config if profile is None else _fitting_profile(profile, bundle)
    return kind(bundle, configured(base, fields), towers=towers, image_limits=image_limits)


def _prefix(item: StreamedItem, dim: int) -> StreamedItem:
    return item if item.vector is None else msgspec.structs.replace(item, vector=prefix_of(item.vector, dim))


def _tower_info(name: str, session: Session) -> TowerInfo:
    return TowerInfo(name, Path(session.name).name, session.choices(), session.placement())


def _image_encoder(bundle: Bundle, options: SessionOptions, limits: ImageLimits | None) -> ImageEncoder:
    from mmalign_runtime.image_encoder import ImageEncoder  # a process that embeds texts needs no Pillow

    return ImageEncoder(bundle, options, limits)


def _text_encoder(bundle: Bundle, options: SessionOptions) -> TextEncoder:
    from mmalign_runtime.text_encoder import TextEncoder  # and one that embeds images no tokenizers

    return TextEncoder(bundle, options)


def _region_attention(bundle: Bundle, options: SessionOptions, limits: ImageLimits | None) -> RegionAttention:
    from mmalign_runtime.attention import RegionAttention  # few bundles have one, and few searches a second stage

    return RegionAttention(bundle, options, limits)


def _fitting_profile(path: str | Path, bundle: Bundle) -> RuntimeConfig:
    from mmalign_runtime.profile import load_profile  # few have one

    found = load_profile(path)
    found.check_fits(bundle.spec)
    return found
