"""The vectors that everyone is held to: eager PyTorch after the run's own decoding, preprocessing and tokenizing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.against.peers.pytorch import load_model
from benchmarks.against.protocol import Kind
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.image import decode_image
from mmalign_runtime.image_encoder import Preprocessor
from mmalign_runtime.tokenizer import TextTokenizer


class Oracle:
    """A run's model in eager PyTorch, one item at a time: no batch-mate and no padding has a say."""

    def __init__(self, run: Path) -> None:
        self._model, self._config = load_model(run)
        self._preprocess = Preprocessor(
            build_preprocess(self._config.image).SerializeToString(), thread_pool(available_threads())
        )
        self._tokenizer = TextTokenizer(Tokenizer.from_file(str(run / "tokenizer.json")), self._config.text)

    def vectors(self, kind: Kind, items: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors (N, D) of images (paths) or texts."""
        one = self._image if kind == "image" else self._text
        with torch.inference_mode():
            return np.concatenate([one(item).numpy() for item in items])

    def _image(self, path: str) -> torch.Tensor:
        pixels = decode_image(Path(path).read_bytes(), self._config.image)  # (H, W, 3)
        return self._model.encode_image(torch.from_numpy(self._preprocess(pixels)))  # (1, D)

    def _text(self, text: str) -> torch.Tensor:
        tokens = self._tokenizer.encode([text])
        return self._model.encode_text(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))
