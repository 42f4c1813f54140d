"""fastembed, offline, on our ONNX files: `specific_model_path` with the files that its own models come with.

Images are given as paths and texts as a list, as in its examples. With `parallel`, every call of `embed` starts its
worker processes anew. That is for long runs, so a call goes over the items several times, and the time to the first
batch is left out, in its favour: what is timed is what a long run would see.
"""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import islice
from time import perf_counter

import numpy as np
from fastembed import ImageEmbedding, TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from numpy.typing import NDArray

from benchmarks.against.protocol import Kind, Load, Setting, Timed

# Its entry for a plain convolutional network: preprocessing by preprocessor_config.json, one input, one output.
_IMAGE_MODEL = "Qdrant/resnet50-onnx"
_TEXT_MODEL = "mmalign/text"
_CLIP_MODELS = ("Qdrant/clip-ViT-B-32-vision", "Qdrant/clip-ViT-B-32-text")
_EMBED_DIM = 256
# With processes, a call must be long enough for the batches in flight to say little.
_MIN_BATCHES = 8


class FastembedPeer:
    """Both of its classes, on one bundle's files."""

    def __init__(self, request: Load) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        TextEmbedding.add_custom_model(
            model=_TEXT_MODEL,
            pooling=PoolingType.DISABLED,
            normalization=False,
            sources=ModelSource(hf=_TEXT_MODEL),
            dim=_EMBED_DIM,
            model_file="model.onnx",
        )
        threads = request.num_threads
        files = request.model
        image, text = _CLIP_MODELS if files.is_clip else (_IMAGE_MODEL, _TEXT_MODEL)
        self._image = ImageEmbedding(image, threads=threads, specific_model_path=files.fastembed_image)
        self._text = TextEmbedding(text, threads=threads, specific_model_path=files.fastembed_text)
        self.versions = {name: version(name) for name in ("fastembed", "onnxruntime", "pillow", "tokenizers")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items in this process."""
        return np.stack(list(self._embed(kind, items, setting, None))).astype(np.float32)

    def timed(self, kind: Kind, items: Sequence[str], setting: Setting) -> Timed:
        """Time a call; with processes, from their first batch of vectors on."""
        if not setting.processes:
            start = perf_counter()
            vectors = self.encode(kind, items, setting)
            return Timed(vectors, (perf_counter() - start) / len(items))
        batch_size = _batch_size(setting)
        # The first batches come when all processes have started: one each.
        num_first = batch_size * setting.processes
        num_passes = max(2, -(-_MIN_BATCHES * num_first // len(items)))
        found = iter(self._embed(kind, list(items) * num_passes, setting, setting.processes))
        first = list(islice(found, num_first))
        start = perf_counter()
        rest = list(found)
        seconds = perf_counter() - start
        return Timed(np.stack([*first, *rest][: len(items)]).astype(np.float32), seconds / len(rest))

    def _embed(
        self, kind: Kind, items: Sequence[str], setting: Setting, parallel: int | None
    ) -> Iterable[NDArray[np.float32]]:
        model = self._image if kind == "image" else self._text
        if not setting.batch_size:
            yield from model.embed(list(items), parallel=parallel)
        else:
            yield from model.embed(list(items), batch_size=setting.batch_size, parallel=parallel)


def _batch_size(setting: Setting) -> int:
    if not setting.batch_size:
        raise ValueError("fastembed with processes needs a batch size: its default for texts is one batch for all")
    return setting.batch_size
