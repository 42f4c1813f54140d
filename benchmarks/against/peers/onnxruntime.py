"""onnxruntime by itself, as its examples use it: a default session, torchvision and transformers before it."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.against.peers.pytorch import DEFAULT_BATCH_SIZE, image_transform, load_transformers_tokenizer
from benchmarks.against.protocol import Kind, Load, Setting
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import ImageTower, TextTower


class OnnxRuntimePeer:
    """One session a tower, on the bundle's float32 files."""

    def __init__(self, request: Load) -> None:
        bundle = open_bundle(request.model.bundle, check_hashes=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.num_threads
        folder = Path(request.model.bundle)
        files = {"image": bundle.spec.artifact("image").file, "text": bundle.spec.artifact("text").file}
        self._sessions = {
            kind: onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for kind, name in files.items()
        }
        self._transform = image_transform(bundle.spec.tower("image", ImageTower).spec)
        self._tokenizer = load_transformers_tokenizer(Path(request.model.run))
        self._context_length = bundle.spec.tower("text", TextTower).spec.context_length
        self.versions = {name: version(name) for name in ("onnxruntime", "torchvision", "transformers", "pillow")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items batch by batch."""
        feeds = self._image_feeds if kind == "image" else self._text_feeds
        batch_size = setting.batch_size or DEFAULT_BATCH_SIZE
        batches = (items[start : start + batch_size] for start in range(0, len(items), batch_size))
        session = self._sessions[kind]
        return np.concatenate([session.run(None, feed)[0] for batch in batches for feed in feeds(batch)])

    def _image_feeds(self, paths: Sequence[str]) -> Iterator[dict[str, NDArray[np.float32]]]:
        pixels = []
        for path in paths:
            with Image.open(path) as image:
                pixels.append(self._transform(image.convert("RGB")).numpy())
        yield {"pixel_values": np.stack(pixels)}  # (B, 3, S, S)

    def _text_feeds(self, texts: Sequence[str]) -> Iterator[dict[str, NDArray[np.int64]]]:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._context_length, return_tensors="np"
        )
        yield {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
