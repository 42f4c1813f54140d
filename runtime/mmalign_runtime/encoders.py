"""The two sides of a bundle, stage by stage: what the embedder runs, and what verify and bench look into."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.session import OnnxSession, SessionOptions
from mmalign_runtime.engine.threads import limit_tokenizer_threads
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.preprocess import Preprocessor
from mmalign_runtime.spec import ImageLimits, Precision
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TextTokenizer, TokenBatch, check_text


class ImageEncoder:
    """The image side: decode, preprocess, tower. `limits` take the place of the bundle's own, when given."""

    def __init__(
        self, bundle: Bundle, precision: Precision, options: SessionOptions, limits: ImageLimits | None = None
    ) -> None:
        files = bundle.spec.image
        self.files = files
        self.spec = msgspec.structs.replace(files.spec, limits=limits) if limits else files.spec
        self.preprocess = Preprocessor(bundle.source(files.preprocess), options.pool)
        self.session = _session(bundle, bundle.model("image", precision), options)

    def pixel_values(self, item: ImageItem, index: int) -> NDArray[np.float32]:
        """Return one item's (1, 3, S, S) float32. Raises ItemError."""
        return self.preprocess(decode_image(item, self.spec, index=index))

    def vectors(self, prepared: Sequence[NDArray[np.float32]]) -> Vectors:
        """Return (B, D) for B prepared images, (1, 3, S, S) each."""
        return self.session.run({self.files.input_name: np.concatenate(prepared)})

    def close(self) -> None:
        """Let go of the tower and the preprocessing graph."""
        self.session.close()
        self.preprocess.session.close()


class TextEncoder:
    """The text side: tokenize, tower."""

    def __init__(self, bundle: Bundle, precision: Precision, options: SessionOptions) -> None:
        files = bundle.spec.text
        self.files = files
        limit_tokenizer_threads(options.pool.num_threads)
        self.tokenizer = TextTokenizer.from_bytes(bundle.read(files.tokenizer), files.tokenizer, files.spec)
        # Texts differ in length, so a batch seldom has the shape of the last one.
        varying = msgspec.structs.replace(options, reuse_memory_plan=False)
        self.session = _session(bundle, bundle.model("text", precision), varying)

    def checked(self, text: str, index: int) -> str:
        """Return the text itself. Raises ItemError when it cannot be tokenized."""
        check_text(text, index, self.files.spec)
        return text

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D) for B checked texts."""
        return self.tower(self.tokenizer.encode(texts))

    def tower(self, tokens: TokenBatch) -> Vectors:
        """Return (B, D) for tokens (B, L)."""
        ids_name, mask_name = self.files.input_names
        return self.session.run({ids_name: tokens.input_ids, mask_name: tokens.attention_mask})

    def close(self) -> None:
        """Let go of the tower."""
        self.session.close()


def _session(bundle: Bundle, name: str, options: SessionOptions) -> OnnxSession:
    return OnnxSession(bundle.source(name), f"{bundle.path / name}", options)
