"""Images and texts to unit vectors: the runtime's front door."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar, get_args, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.errors import BundleError, ItemError
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.preprocess import Preprocessor
from mmalign_runtime.providers import Provider, resolve_provider
from mmalign_runtime.session import OnnxSession, SessionOptions
from mmalign_runtime.spec import Modality, Precision
from mmalign_runtime.threads import available_threads
from mmalign_runtime.tokenizer import TextTokenizer, TokenBatch, check_text

DEFAULT_BATCH_SIZE = 32

Vectors = NDArray[np.float32]
OnError = Literal["raise", "skip"]
Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Encoder = TypeVar("Encoder")


class PartialBatch(msgspec.Struct, frozen=True):
    """What `on_error="skip"` returns: `vectors` (M, D), the `indices` (M,) of their items, and the failures."""

    vectors: Vectors
    indices: NDArray[np.int64]
    errors: tuple[ItemError, ...]


class StreamedItem(msgspec.Struct, frozen=True):
    """One item of a stream: its `vector` (D,), or the `error` that it met."""

    index: int
    vector: Vectors | None
    error: ItemError | None


class ImageEncoder:
    """The image side: decode, preprocess, tower."""

    def __init__(self, bundle: Bundle, precision: Precision, options: SessionOptions) -> None:
        files = bundle.spec.image
        self.files = files
        self.preprocess = Preprocessor(bundle.file(files.preprocess), options.num_threads)
        self.session = OnnxSession(bundle.file(_model(files.models, precision, "image")), options)

    def pixel_values(self, item: ImageItem, index: int) -> NDArray[np.float32]:
        """Return one item's (1, 3, S, S) float32. Raises ItemError."""
        return self.preprocess(decode_image(item, self.files.spec, index=index))

    def vectors(self, prepared: Sequence[NDArray[np.float32]]) -> Vectors:
        """Return (B, D) for B prepared images, (1, 3, S, S) each."""
        return self.session.run({self.files.input_name: np.concatenate(prepared)})


class TextEncoder:
    """The text side: tokenize, tower."""

    def __init__(self, bundle: Bundle, precision: Precision, options: SessionOptions) -> None:
        files = bundle.spec.text
        self.files = files
        self.tokenizer = TextTokenizer.from_file(bundle.file(files.tokenizer), files.spec)
        self.session = OnnxSession(bundle.file(_model(files.models, precision, "text")), options)

    def checked(self, text: str, index: int) -> str:
        """Return the text itself. Raises ItemError when it cannot be tokenized."""
        check_text(text, index)
        return text

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) for B checked texts."""
        return self.tower(self.tokenizer.encode(texts))

    def tower(self, tokens: TokenBatch) -> Vectors:
        """Return (B, D) for tokens (B, L)."""
        ids_name, mask_name = self.files.input_names
        return self.session.run({ids_name: tokens.input_ids, mask_name: tokens.attention_mask})


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
        return self._gather(self.stream_images(items, batch_size=batch_size, on_error=on_error), on_error)

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
        return self._gather(self.stream_texts(texts, batch_size=batch_size, on_error=on_error), on_error)

    def stream_images(
        self, items: Iterable[ImageItem], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of images, one batch in memory at a time, yielding them in order."""
        return _stream(items, self.image.pixel_values, self.image.vectors, batch_size, on_error)

    def stream_texts(
        self, texts: Iterable[str], *, batch_size: int = DEFAULT_BATCH_SIZE, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of texts, one batch in memory at a time, yielding them in order."""
        return _stream(texts, self.text.checked, self.text.vectors, batch_size, on_error)

    def _gather(self, stream: Iterator[StreamedItem], on_error: OnError) -> Vectors | PartialBatch:
        indices: list[int] = []
        vectors: list[Vectors] = []
        errors: list[ItemError] = []
        for item in stream:
            if item.vector is not None:
                indices.append(item.index)
                vectors.append(item.vector)
            elif item.error is not None:
                errors.append(item.error)
        stacked = np.stack(vectors) if vectors else np.empty((0, self.embed_dim), np.float32)  # (M, D)
        if on_error == "raise":
            return stacked
        return PartialBatch(stacked, np.array(indices, np.int64), tuple(errors))


def _stream(
    items: Iterable[Item],
    prepare: Callable[[Item, int], Prepared],
    embed: Callable[[Sequence[Prepared]], Vectors],
    batch_size: int,
    on_error: OnError,
) -> Iterator[StreamedItem]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
    numbered = enumerate(items)
    while batch := list(islice(numbered, batch_size)):
        yield from _embed_batch(batch, prepare, embed, on_error)


def _embed_batch(
    batch: Sequence[tuple[int, Item]],
    prepare: Callable[[Item, int], Prepared],
    embed: Callable[[Sequence[Prepared]], Vectors],
    on_error: OnError,
) -> Iterator[StreamedItem]:
    prepared: dict[int, Prepared] = {}
    errors: dict[int, ItemError] = {}
    for index, item in batch:
        try:
            prepared[index] = prepare(item, index)
        except ItemError as error:
            if on_error == "raise":
                raise
            errors[index] = error
    vectors = dict(zip(prepared, embed(list(prepared.values())), strict=True)) if prepared else {}
    for index, _ in batch:
        yield StreamedItem(index, vectors.get(index), errors.get(index))


def _model(models: dict[Precision, str], precision: Precision, tower: Modality) -> str:
    if precision not in models:
        raise BundleError(
            f"the {tower} tower has no {precision} file; it offers {', '.join(models)}. Ask for one of these."
        )
    return models[precision]


def _loaded(encoder: Encoder | None, tower: Modality) -> Encoder:
    if encoder is None:
        raise BundleError(f"the {tower} tower was not loaded: add {tower!r} to `towers` of Embedder.load.")
    return encoder


def _reject_single(items: object, name: str) -> None:
    if isinstance(items, str | bytes | Path):
        raise TypeError(f"{name} is a single {type(items).__name__}, expected a list: pass [{name}].")
