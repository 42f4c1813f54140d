"""The two sides of a bundle, stage by stage: what the embedder runs, and what verify and bench look into."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.engines import open_session
from mmalign_runtime.engine.session import ComputePrecision, SessionOptions
from mmalign_runtime.engine.threads import limit_tokenizer_threads
from mmalign_runtime.errors import EngineError
from mmalign_runtime.image import HeldImage, ImageItem, decode_held, hold_image
from mmalign_runtime.preprocess import Preprocessor
from mmalign_runtime.spec import ImageLimits
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TextTokenizer, TokenBatch, TokenRow, check_text

# float16 keeps three digits; a tower that lost its normalisation is off by far more.
_LENGTH_BOUND = 5e-3
# On a CPU what a run keeps of more images or tokens leaves the caches: measured on 2 cores, with the demo's towers and
# the reference's (docs/decisions.md). Another device takes whole batches.
_MOST_IMAGES = 8
_TOKEN_BUDGET = 512


class ImageEncoder:
    """The image side: decode, preprocess, tower. `limits` take the place of the bundle's own, when given."""

    def __init__(
        self, bundle: Bundle, precision: ComputePrecision, options: SessionOptions, limits: ImageLimits | None = None
    ) -> None:
        files = bundle.spec.image
        self.files = files
        self._checked = UnitVectors(bundle.spec.embed_dim, f"{bundle.path}: the image tower")
        self.spec = msgspec.structs.replace(files.spec, limits=limits) if limits else files.spec
        self.preprocess = Preprocessor(bundle.source(files.preprocess), options.pool)
        self.session = open_session(bundle, "image", precision, (files.input_name,), options)
        # With one thread on the CPU there is nothing that preparing could overlap with.
        is_alone = options.provider == "cpu" and options.pool.num_threads == 1
        self.num_workers = 0 if is_alone else options.pool.num_threads
        self.most_at_once = _MOST_IMAGES if options.provider == "cpu" else None

    def hold(self, item: ImageItem, index: int) -> HeldImage:
        """Read what only the caller's thread may read of an item. Raises ItemError."""
        return hold_image(item, self.spec, index=index)

    def empty(self, num_images: int) -> NDArray[np.float32]:
        """Return room for B prepared images, (B, 3, S, S)."""
        return np.empty((num_images, 3, self.spec.size, self.spec.size), np.float32)

    def prepare(self, held: HeldImage, index: int, room: NDArray[np.float32]) -> None:
        """Decode and preprocess one image into its room, (3, S, S), from any thread. Raises ItemError."""
        room[...] = self.preprocess(decode_held(held, self.spec, index=index))[0]

    def vectors(self, prepared: Sequence[NDArray[np.float32]]) -> Vectors:
        """Return (B, D) for B prepared images, (1, 3, S, S) each."""
        return self.tower(np.concatenate(prepared))

    def tower(self, pixel_values: NDArray[np.float32]) -> Vectors:
        """Return (B, D) for pixel_values (B, 3, S, S)."""
        return self._checked(self.session.run({self.files.input_name: pixel_values}))

    def close(self) -> None:
        """Let go of the tower and the preprocessing graph."""
        self.session.close()
        self.preprocess.session.close()


class TextEncoder:
    """The text side: tokenize, tower."""

    def __init__(self, bundle: Bundle, precision: ComputePrecision, options: SessionOptions) -> None:
        files = bundle.spec.text
        self.files = files
        self._checked = UnitVectors(bundle.spec.embed_dim, f"{bundle.path}: the text tower")
        limit_tokenizer_threads(options.pool.num_threads)
        self.tokenizer = TextTokenizer.from_bytes(bundle.read(files.tokenizer), files.tokenizer, files.spec)
        # Texts differ in length, so a batch seldom has the shape of the last one.
        varying = msgspec.structs.replace(options, reuse_memory_plan=False)
        self.session = open_session(bundle, "text", precision, files.input_names, varying)
        self.token_budget = _TOKEN_BUDGET if options.provider == "cpu" else None

    def check(self, text: str, index: int) -> None:
        """Raise ItemError when a text cannot be tokenized."""
        check_text(text, index, self.files.spec)

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return the tokens of checked texts."""
        return self.tokenizer.tokenize(texts)

    def padded_length(self, rows: Sequence[TokenRow]) -> int:
        """Return L of the batch that these rows would make."""
        return self.tokenizer.padded_length(rows)

    def batch(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return rows as one batch (B, L)."""
        return self.tokenizer.batch(rows)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) for B checked texts."""
        return self.tower(self.tokenizer.encode(texts))

    def tower(self, tokens: TokenBatch) -> Vectors:
        """Return (B, D) for tokens (B, L)."""
        ids_name, mask_name = self.files.input_names
        return self._checked(self.session.run({ids_name: tokens.input_ids, mask_name: tokens.attention_mask}))

    def close(self) -> None:
        """Let go of the tower."""
        self.session.close()


class UnitVectors:
    """Holds what a tower gives to what a bundle promises: (B, D) float32 of unit length, every number finite."""

    def __init__(self, embed_dim: int, name: str) -> None:
        self._embed_dim = embed_dim
        self._name = name

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return the vectors themselves. Raises EngineError when they are none that could go into an index."""
        if vectors.ndim != 2 or vectors.shape[1] != self._embed_dim or vectors.dtype != np.float32:
            seen = f"{vectors.shape} {vectors.dtype}"
            raise EngineError(f"{self._name} gave {seen}, expected (B, {self._embed_dim}) float32. Export it again.")
        moved = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0.0))
        if not moved <= _LENGTH_BOUND:  # also where it is no number
            reason = f"{self._name} gave a vector whose length is off by {moved:.2g}, expected 1"
            raise EngineError(f"{reason}: its weights or this provider are broken. Run `mmalign verify`.")
        return vectors
