"""Features of towers, computed in batches; `feature_cache` keeps those of frozen towers.

Pixels go through the preprocessing graph and texts through the runtime's tokenizer: the same code that serves.
Shapes: N items, V views, F features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor, nn

from mmalign.augment import ImageAugment
from mmalign.data import Pair
from mmalign.data.identity import image_identity, is_path_identity
from mmalign.dual_model import ImageModelTower, TextModelTower
from mmalign.feature_cache import FeatureCache
from mmalign.fingerprint import digest_state, digest_texts
from mmalign.pairs import decode_pair
from mmalign.progress import track
from mmalign.seeds import seed_of
from mmalign_runtime.image import Pixels

__all__ = ["FeatureCache", "ImageFeatures", "TextFeatures"]

# On a CPU small batches win: activations of 64 images are mapped anew by the allocator at each call. Measured on 2
# cores, EfficientNet-Lite0: 29 ms an image at 64, 10 ms at 8 with channels last.
_IMAGE_BATCH = {"cpu": 8, "cuda": 128}
_TEXT_BATCH = 128


class ImageFeatures:
    """Runs an image tower over pairs, eval mode, clean pixels or augmented views.

    Its keys are for towers that do not change: the weights are read once, since hashing a large tower takes a second.
    """

    def __init__(self, tower: ImageModelTower, device: torch.device) -> None:
        self._tower = tower
        self._spec = tower.spec
        self._device = device

    def compute(self, pairs: Sequence[Pair], description: str) -> Tensor:
        """Return the features (N, F) of the pairs' images, preprocessed as they will be served. Raises ItemError."""
        return self._run(pairs, description, lambda pixels, _: torch.from_numpy(self._tower.preprocess(pixels)))

    def compute_view(self, pairs: Sequence[Pair], augment: ImageAugment, view: int, description: str) -> Tensor:
        """Return the features (N, F) of one augmented view of each image. Raises ItemError."""
        return self._run(pairs, description, lambda pixels, i: augment(pixels, seed_of(view, i)).unsqueeze(0))

    def key(self, pairs: Sequence[Pair], *variant: str | bytes) -> list[str | bytes]:
        """Return what decides these features: the tower, the image spec and its graph, the images, and `variant`."""
        spec = msgspec.json.encode(self._spec, order="sorted")
        return ["image", self._state_digest, spec, self._tower.graph, *variant, digest_texts(map(_content_key, pairs))]

    @functools.cached_property
    def _state_digest(self) -> str:
        return digest_state(self._tower.backbone.state_dict())

    def _run(self, pairs: Sequence[Pair], description: str, prepare: Callable[[Pixels, int], Tensor]) -> Tensor:
        batches = _batches(len(pairs), _IMAGE_BATCH[self._device.type])
        pixel_values = (
            torch.cat([prepare(decode_pair(pairs[i], self._spec, i), i) for i in rows])  # (B, 3, S, S)
            for rows in batches
        )
        run = _evaluating(self._tower.backbone, self._device)
        parts = [
            run(batch.contiguous(memory_format=torch.channels_last))
            for batch in track(pixel_values, description, len(batches))
        ]
        return torch.cat(parts)  # (N, F)


class TextFeatures:
    """Runs a text tower over texts, eval mode. Its keys are for towers that do not change."""

    def __init__(self, tower: TextModelTower, device: torch.device) -> None:
        self._tower = tower
        self._device = device

    def compute(self, texts: Sequence[str], description: str) -> Tensor:
        """Return the features (N, F) of texts, in their order; run sorted by length so that little is padding."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = _batches(len(texts), _TEXT_BATCH)
        run = _evaluating(self._tower.backbone, self._device)
        parts = []
        for rows in track(batches, description, len(batches)):
            arrays = self._tower.prepare([texts[order[i]] for i in rows])
            parts.append(run(*self._tower.tensors(arrays)))
        features = torch.cat(parts)  # (N, F), by length
        return features[torch.argsort(torch.tensor(order))]  # (N, F), as given

    def key(self, texts: Sequence[str]) -> list[str | bytes]:
        """Return what decides these features: the tower with its pooling, the text spec, the tokenizer, the texts."""
        spec = msgspec.json.encode(self._tower.spec, order="sorted")
        tokenizer = self._tower.tokenizer.to_str()
        return ["text", self._state_digest, self._tower.definition, spec, tokenizer, digest_texts(texts)]

    @functools.cached_property
    def _state_digest(self) -> str:
        return digest_state(self._tower.backbone.state_dict())


def _evaluating(tower: nn.Module, device: torch.device) -> Callable[..., Tensor]:
    tower.to(device)

    def run(*inputs: Tensor) -> Tensor:
        was_training = tower.training
        tower.eval()
        with torch.inference_mode():
            features: Tensor = tower(*(tensor.to(device) for tensor in inputs))
        tower.train(was_training)
        return features.float().cpu()

    return run


def _batches(num_items: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, num_items)) for start in range(0, num_items, batch_size)]


def _content_key(pair: Pair) -> str:
    """Return what stands for an image's bytes; where only its path is known, with the file's size and time."""
    identity = image_identity(pair)
    if isinstance(pair.image, bytes) or not is_path_identity(identity):
        return identity
    try:
        status = pair.image.stat()
    except OSError:  # computing these features names the pair
        return identity
    return f"{identity}:{status.st_size}:{status.st_mtime_ns}"
