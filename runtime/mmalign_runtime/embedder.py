"""Images and texts to unit vectors: the runtime's front door."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar, get_args, overload

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.choices import BatchSizes, Choices
from mmalign_runtime.counts import as_count
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import DEFAULT_ENGINE, ComputePrecision, Session, SessionOptions
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import BundleError, EmbedderStateError, ProviderError
from mmalign_runtime.image_stream import stream_images
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.names import as_text
from mmalign_runtime.once import Once
from mmalign_runtime.spec import ImageLimits, Modality, Similarity
from mmalign_runtime.streaming import OnError, PartialBatch, StreamedItem, Vectors, gather
from mmalign_runtime.support import check_supported
from mmalign_runtime.text_stream import stream_texts

if TYPE_CHECKING:
    from mmalign_runtime.clipping import ClippedTensor
    from mmalign_runtime.image import ImageItem
    from mmalign_runtime.image_encoder import ImageEncoder
    from mmalign_runtime.text_encoder import TextEncoder

Verification = Literal["hash", "golden"]
Encoder = TypeVar("Encoder", "ImageEncoder", "TextEncoder")


class Embedder:
    """Turns images and texts into unit vectors of one space.

    Safe to call from many threads at once; on the CPU as many runs go on at once as there are threads. Not across
    a fork: load it in the child. Close it, or use it as a context manager, to give its memory back at once.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str = DEFAULT_ENGINE,
        provider: Provider = "auto",
        precision: ComputePrecision = "fp32",
        num_threads: int | None = None,
        towers: Sequence[Modality] = ("image", "text"),
        image_limits: ImageLimits | None = None,
        allow_spinning: bool = False,
        allow_tf32: bool = False,
        cuda_graphs: bool = False,
        batch_sizes: BatchSizes | None = None,
        cache: bool = False,
    ) -> None:
        """Take an opened bundle; towers are loaded when first used. `load` is the usual way in.

        `batch_sizes` are those of calls that name none.
        """
        _check_towers(towers)
        limits = _checked_limits(image_limits)
        or_available = ", or None for what is available"
        num = None if num_threads is None else as_count(num_threads, "num_threads", otherwise=or_available)
        self.engine = found = find_engine(engine)
        resolved = found.resolve_provider(provider)
        if cuda_graphs and (engine != DEFAULT_ENGINE or resolved != "cuda"):
            raise ProviderError(
                f"cuda_graphs was asked for, with engine {engine!r} on provider {resolved!r}, expected onnxruntime on "
                "'cuda'. Leave it out."
            )
        for tower in towers:
            artifact = found.artifact(bundle.spec, tower, precision)
            check_supported(bundle.spec.towers[tower], artifact)
        self.bundle = bundle
        self.precision: ComputePrecision = precision
        self.batch_sizes = batch_sizes or BatchSizes()
        self.towers = tuple(towers)
        self._provider_asked = provider
        pool = thread_pool(num or available_threads())
        self.options = options = SessionOptions(
            resolved,
            pool,
            allow_spinning=allow_spinning,
            allow_tf32=allow_tf32,
            cuda_graphs=cuda_graphs,
            engine=engine,
            cache=cache,
        )
        # No reference to `self`: an embedder that is dropped must give its memory back at once, not when cycles are.
        self._image = Once(lambda: _image_encoder(bundle, precision, options, limits))
        self._text = Once(lambda: _text_encoder(bundle, precision, options))
        self._is_closed = False
        self._process_id = os.getpid()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        profile: str | Path | None = None,
        engine: str | None = None,
        provider: Provider | None = None,
        precision: ComputePrecision | None = None,
        num_threads: int | None = None,
        towers: Sequence[Modality] = ("image", "text"),
        verify: Verification | None = "hash",
        lazy: bool = False,
        image_limits: ImageLimits | None = None,
        allow_spinning: bool | None = None,
        allow_tf32: bool = False,
        cuda_graphs: bool = False,
        cache: bool = False,
    ) -> Embedder:
        """Open a bundle, a folder or a .mmalign file, and load the towers asked for.

        `engine` is "onnxruntime" (the default), "openvino" or "aotinductor"; `provider` defaults to "auto", `precision`
        to "fp32", and "bf16" computes the fp32 files in bfloat16 where the engine and the processor can. `profile` is a
        file that `mmalign bench --save-profile` wrote: it takes the place of these defaults, of `num_threads`, of
        `allow_spinning` and of the batch sizes, and what is passed here wins over it.

        `num_threads` defaults to what the affinity mask and the container's quota allow. `verify="hash"` holds every
        file to its hash (files untouched since an earlier check are not read again), `"golden"` runs the golden cases
        too, as `mmalign verify` does, None does neither. With `lazy`, a tower is loaded when it is first used.
        `image_limits` take the place of the bundle's. `allow_spinning` lets threads wait busily between runs: for a
        machine that does nothing else; `allow_tf32` lets CUDA trade digits for speed, and `cuda_graphs` has it record
        the image tower's launches for batches of 1, 8 and 32 and play them back, others filled up to these. `cache`
        keeps the graphs as onnxruntime optimised them in the user's cache, for this processor: loading takes less time
        and memory from the second time on.

        Raises BundleError (and its children) when the bundle cannot be used, ProviderError when the engine or provider
        is not there, MissingDependencyError when it is not installed, ProfileError when the profile does not fit this
        bundle and machine, ValueError for arguments that make no sense.
        """
        if verify not in (None, *get_args(Verification)):
            raise ValueError(f"verify is {verify!r}, expected 'hash', 'golden' or None.")
        bundle = open_bundle(path, check_hashes=verify is not None)
        default = Choices() if profile is None else _choices_of(profile, bundle)
        embedder = cls(
            bundle,
            engine=default.engine if engine is None else engine,
            provider=default.provider if provider is None else provider,
            precision=default.precision if precision is None else precision,
            num_threads=default.num_threads if num_threads is None else num_threads,
            towers=towers,
            image_limits=image_limits,
            allow_spinning=default.allow_spinning if allow_spinning is None else allow_spinning,
            allow_tf32=allow_tf32,
            cuda_graphs=cuda_graphs,
            batch_sizes=default.batch_sizes,
            cache=cache,
        )
        if not lazy:
            embedder.load_towers()
        if verify == "golden":
            from mmalign_runtime.verify import require_golden  # it embeds, so it stands above this module

            try:
                require_golden(embedder)
            except BaseException:
                embedder.close()
                raise
        return embedder

    def load_towers(self) -> None:
        """Load every tower that was asked for and is not loaded yet."""
        for tower in self.towers:
            _ = self.image if tower == "image" else self.text

    def close(self) -> None:
        """Give back the memory of both towers; using the embedder afterwards raises EmbedderStateError."""
        self._is_closed = True
        for encoder in (self._image.made, self._text.made):
            if encoder is not None:
                encoder.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def space_id(self) -> str:
        """The id of the space that every vector of this embedder lives in."""
        return self.bundle.spec.space_id

    @property
    def embed_dim(self) -> int:
        """D, the length of every vector."""
        return self.bundle.spec.embed_dim

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

    def info(self) -> RuntimeInfo:
        """Say what was chosen: engine, provider and its options, precision, threads, and where the nodes went."""
        if self._is_closed:
            raise EmbedderStateError("this embedder was closed. Load it again.")
        loaded = [("image", self._image.made), ("text", self._text.made)]
        return RuntimeInfo(
            bundle=as_text(self.bundle.path),
            space_id=self.space_id,
            variant_id=self.variant_id,
            embed_dim=self.embed_dim,
            precision=self.precision,
            engine=self.engine.name,
            engine_version=self.engine.version(),
            provider_asked=self._provider_asked,
            provider=self.options.provider,
            num_threads=self.options.pool.num_threads,
            num_runs=self.options.pool.num_runs,
            allow_spinning=self.options.allow_spinning,
            cache=self.options.cache,
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
        _reject_single(items, "items")
        size = as_count(self.batch_sizes.image if batch_size is None else batch_size, "batch_size")
        return stream_images(items, self.image, size, on_error)

    def stream_texts(
        self, texts: Iterable[str], *, batch_size: int | None = None, on_error: OnError = "raise"
    ) -> Iterator[StreamedItem]:
        """Embed any number of texts, yielding them in order.

        A window of texts is in memory at a time, tokenized at once and run by length: 16 batches of them, or fewer
        where they are long. With a `batch_size` of 1 each text is run as it comes.
        """
        _reject_single(texts, "texts")
        size = as_count(self.batch_sizes.text if batch_size is None else batch_size, "batch_size")
        return stream_texts(texts, self.text, size, on_error)

    def clipping(
        self, *, images: Sequence[ImageItem] = (), texts: Sequence[str] = ()
    ) -> dict[Modality, tuple[ClippedTensor, ...]]:
        """Count how often these items leave the ranges of the int8 towers, of each kind that is given.

        Returns every range with its shares (0..1) at calibration and on evaluation pairs, and `seen` on these items. It
        is a measurement: each item is run once, alone, on the CPU. Raises BundleError when the bundle keeps nothing to
        count with, ItemError as `encode_image` does.
        """
        from mmalign_runtime.clipping import count_clipping

        return count_clipping(self, images, texts)

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return (N,) which texts are longer than the bundle's context length, and lose their end before the tower."""
        _reject_single(texts, "texts")
        return self.text.tokenizer.encode(texts).truncated

    def _still_open(self, encoder: Encoder) -> Encoder:
        if self._is_closed:  # while it was loaded
            encoder.close()
            raise EmbedderStateError("this embedder was closed. Load it again.")
        return encoder

    def _check_usable(self, tower: Modality) -> None:
        if self._process_id != os.getpid():  # before any lock: in a fork, the thread that holds it is not there
            raise EmbedderStateError(
                f"this embedder belongs to process {self._process_id}, and this is a fork of it, without its threads. "
                "Load the Embedder after the fork, or start workers with multiprocessing's 'spawn'."
            )
        if self._is_closed:
            raise EmbedderStateError("this embedder was closed. Load it again.")
        if tower not in self.towers:
            raise BundleError(f"the {tower} tower was not loaded: add {tower!r} to `towers` of Embedder.load.")


def _tower_info(name: str, session: Session) -> TowerInfo:
    return TowerInfo(name, Path(session.name).name, session.choices(), session.placement())


def _image_encoder(
    bundle: Bundle, precision: ComputePrecision, options: SessionOptions, limits: ImageLimits | None
) -> ImageEncoder:
    from mmalign_runtime.image_encoder import ImageEncoder  # a process that embeds texts needs no Pillow

    return ImageEncoder(bundle, precision, options, limits)


def _text_encoder(bundle: Bundle, precision: ComputePrecision, options: SessionOptions) -> TextEncoder:
    from mmalign_runtime.text_encoder import TextEncoder  # and one that embeds images no tokenizers

    return TextEncoder(bundle, precision, options)


def _choices_of(profile: str | Path, bundle: Bundle) -> Choices:
    from mmalign_runtime.profile import load_profile  # few have one

    found = load_profile(profile)
    found.check_fits(bundle.spec)
    return found.choices()


def _check_towers(towers: object) -> None:
    names = get_args(Modality)
    if isinstance(towers, str) or not isinstance(towers, Sequence) or not towers or set(towers) - set(names):
        raise ValueError(f"towers is {towers!r}, expected a sequence with some of {', '.join(names)}.")


def _checked_limits(limits: object) -> ImageLimits | None:
    if limits is None:
        return None
    if not isinstance(limits, ImageLimits):
        raise ValueError(f"image_limits is a {type(limits).__name__}, expected ImageLimits(max_pixels=...).")
    counts = ("max_pixels", "max_bytes", "max_side")
    whole = {name: as_count(getattr(limits, name), f"image_limits: {name}") for name in counts}
    ratio = limits.max_aspect_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, float | int | np.integer | np.floating) or not ratio >= 1:
        raise ValueError(f"image_limits: max_aspect_ratio is {ratio!r}, expected a number of at least 1.")
    return ImageLimits(**whole, max_aspect_ratio=float(ratio))


def _reject_single(items: object, name: str) -> None:
    is_one = isinstance(items, str | bytes | bytearray | memoryview | PurePath) or hasattr(items, "read")
    is_one = is_one or hasattr(items, "getbands") or getattr(items, "ndim", 1) == 3  # a PIL image, an array of pixels
    if is_one:
        raise TypeError(f"{name} is a single {type(items).__name__}, expected a list: pass [{name}].")
