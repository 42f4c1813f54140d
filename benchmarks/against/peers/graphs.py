"""The bundle's own graphs in onnxruntime's default sessions, with the decoder and tokenizer of the runtime.

What is left to compare is the way an embedder runs its sessions, and what it does around them.
"""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.against.protocol import Kind, Load, Setting
from mmalign_runtime import Embedder
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageTower, TextTower


class GraphsPeer:
    """One session a graph; items are embedded one by one."""

    def __init__(self, request: Load) -> None:
        self._embedder = Embedder.load(request.model.bundle, lazy=True)
        bundle = self._embedder.bundle
        spec = bundle.spec
        self._files, self._inputs = spec.tower("image", ImageTower), spec.tower("text", TextTower).inputs
        self._prepare = _session(str(bundle.source(self._files.preprocess)))
        self._image, self._text = (_session(str(bundle.source(spec.artifact(name).file))) for name in ("image", "text"))
        self.versions = {name: version(name) for name in ("onnxruntime", "pillow", "tokenizers")}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items one by one."""
        encode = self._encode_image if kind == "image" else self._encode_text
        return np.concatenate([encode(item) for item in items])

    def _encode_image(self, path: str) -> NDArray[np.float32]:
        (pixel_values,) = self._prepare.run(None, {"pixels": decode_image(path, self._files.spec)})
        found: NDArray[np.float32] = self._image.run(None, {self._files.inputs.pixel_values: pixel_values})[0]
        return found

    def _encode_text(self, text: str) -> NDArray[np.float32]:
        tokens = self._embedder.text.tokenizer.encode([text])
        feeds = self._inputs.feeds(tokens.input_ids, tokens.attention_mask)
        found: NDArray[np.float32] = self._text.run(None, feeds)[0]
        return found


def _session(path: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
