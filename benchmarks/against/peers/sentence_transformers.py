"""sentence-transformers on the run's weights: its Transformer and Pooling, then our projection as a module of its own.

It sorts texts by length before it batches them. `processes` is its pool of worker processes, which stay.
"""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.against.peers.pytorch import load_model, load_transformers_tokenizer
from benchmarks.against.protocol import Kind, Load, Setting
from mmalign.model import DualEncoder


class Projection(nn.Module):
    """The text projection of a dual encoder as a sentence-transformers module."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the unit vector (B, D) in the place of the pooled features (B, F)."""
        features["sentence_embedding"] = functional.normalize(self.projection(features["sentence_embedding"]), dim=-1)
        return features


class SentenceTransformersPeer:
    """Its text embedding; it has none for our image tower."""

    def __init__(self, request: Load) -> None:
        torch.set_num_threads(request.num_threads)
        run = Path(request.model.run)
        model, config = load_model(run)
        with tempfile.TemporaryDirectory() as folder:
            model.text_tower.encoder.save_pretrained(folder)
            load_transformers_tokenizer(run).save_pretrained(folder)
            modules = _modules(model, Path(folder), config.text.context_length)
        self._model = SentenceTransformer(modules=modules, device="cpu")
        self._pool: dict[str, object] | None = None
        self.versions = {name: version(name) for name in ("sentence-transformers", "torch", "transformers")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed texts."""
        if kind != "text":
            raise ValueError("sentence-transformers takes texts here")
        if setting.processes and self._pool is None:
            self._pool = self._model.start_multi_process_pool(["cpu"] * setting.processes)
        batch_size = setting.batch_size or 32  # its own default
        pool = self._pool if setting.processes else None
        chunk_size = -(-len(items) // setting.processes) if setting.processes else None
        vectors = self._model.encode(
            list(items), batch_size=batch_size, show_progress_bar=False, pool=pool, chunk_size=chunk_size
        )
        return np.asarray(vectors, np.float32)


def _modules(model: DualEncoder, folder: Path, context_length: int) -> list[nn.Module]:
    transformer = Transformer(str(folder), max_seq_length=context_length)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=model.text_tower.pooling)
    return [transformer, pooling, Projection(model.text_projection).eval()]
