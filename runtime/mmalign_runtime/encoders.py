"""The two sides of a bundle, stage by stage: what the embedder runs, and what verify and bench look into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.errors import BundleError
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.preprocess import Preprocessor
from mmalign_runtime.session import OnnxSession, SessionOptions
from mmalign_runtime.spec import Modality, Precision
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TextTokenizer, TokenBatch, check_text


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


def _model(models: dict[Precision, str], precision: Precision, tower: Modality) -> str:
    if precision not in models:
        raise BundleError(
            f"the {tower} tower has no {precision} file; it offers {', '.join(models)}. Ask for one of these."
        )
    return models[precision]
