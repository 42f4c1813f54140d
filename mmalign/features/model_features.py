"""Features of a model's towers: from disk where a tower stands still, computed in batches where it learns.

Of several processes the first computes what is kept, and the others read it; of a tower that learns, each computes
those of its share of the items, and all get the whole.

Pixels go through the preprocessing graph and texts through the runtime's tokenizer: the same code that serves. Shapes:
N images, M texts, F features of a tower.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from mmalign.data import Pair
from mmalign.data.augment import ImageAugment
from mmalign.data.identity import image_identity, is_path_identity
from mmalign.device import exact_float32
from mmalign.distributed import ALONE, World, gather_rows
from mmalign.dual_model import DualModel, ImageModelTower, ModelTower, TextModelTower
from mmalign.features.cache import FeatureCache
from mmalign.features.folded import folded
from mmalign.features.streams import in_streams
from mmalign.features.token_states import PoolOfTower, TokensOfTower, TokenStates
from mmalign.fingerprint import digest_state, digest_texts
from mmalign.model import is_frozen
from mmalign.model.chunks import Sharing
from mmalign.progress import track
from mmalign.run.pairs import augment_pair, decode_pair
from mmalign.seeds import seed_of
from mmalign.towers.additions import pool_alone_learns
from mmalign.towers.text import TextTower

# On a CPU small batches win: activations of 64 images are mapped anew by the allocator at each call. Measured on 2
# cores, EfficientNet-Lite0: 29 ms an image at 64, 10 ms at 8 with channels last. Those of two images in each of two
# streams stay in the caches of their cores: 13 ms where eight at once took 21 (ResNet-50: alike).
_IMAGE_BATCH = {"cpu": 8, "cuda": 128}
_STREAMED_IMAGE_BATCH = 2
_TEXT_BATCH = 128

SomeTower = TypeVar("SomeTower", bound=ModelTower)


class TowerFeatures(Generic[SomeTower]):
    """Runs one tower over items, in eval mode; what it gives is kept in `cache`, None for a tower that learns.

    A kept tower does not change: its weights are read once for the keys, since hashing a large tower takes a second.
    """

    def __init__(
        self, tower: SomeTower, device: torch.device, cache: FeatureCache | None = None, world: World = ALONE
    ) -> None:
        self._tower = tower
        self._backbone = tower.backbone
        self._device = device
        self._cache = cache
        self._world = world

    @property
    def is_kept(self) -> bool:
        """Say whether features are those of a tower that stands still."""
        return self._cache is not None

    @functools.cached_property
    def _identity(self) -> list[str | bytes]:
        """The tower: its weights, and what they do not tell, such as its activations and how many heads it has."""
        described = json.dumps(self._tower.description, sort_keys=True)
        return [digest_state(self._backbone.state_dict()), self._tower.definition, described]

    @functools.cached_property
    def _folded(self) -> nn.Module | None:
        """The tower without BatchNorm, where it stands still and runs on the CPU."""
        if self._cache is None or self._device.type != "cpu":
            return None
        return folded(self._backbone, self._tower.example().inputs)

    def _kept(self, key: Callable[[], list[str | bytes]], num_items: int, compute: Callable[[range], Tensor]) -> Tensor:
        """Return the features (N, F) of all items, where `compute` gives those of some."""
        everything = range(num_items)
        if self._cache is None:
            rows = Sharing(0, self._world.rank, self._world.size).rows(num_items)
            return gather_rows(self._world, compute(everything[rows]), rows, num_items)
        with self._world.first_then_others():
            return self._cache.get(key(), lambda: compute(everything), (num_items, self._tower.feature_dim))

    def _joined(self, parts: Iterable[Tensor]) -> Tensor:
        """Return parts as one (N, F), of no rows where there are none: a process may have no share of a few items."""
        return torch.cat([torch.empty(0, self._tower.feature_dim), *parts])

    def _evaluate(self, batches: Iterable[tuple[Tensor, ...]], description: str, num_batches: int) -> Iterator[Tensor]:
        """Yield what the tower gives for each batch, (B, F) of a tower that pools, float32 on the CPU."""
        tracked = track(batches, description, num_batches)
        return map(self._run_tower, tracked) if self._folded is None else in_streams(self._run_folded, tracked)

    def _run_tower(self, inputs: tuple[Tensor, ...]) -> Tensor:
        backbone = self._backbone.to(self._device)
        was_training = backbone.training
        backbone.eval()
        with torch.inference_mode(), exact_float32():
            features: Tensor = backbone(*(tensor.to(self._device) for tensor in inputs))
        backbone.train(was_training)
        return features.float().cpu()

    def _run_folded(self, inputs: tuple[Tensor, ...]) -> Tensor:
        assert self._folded is not None
        with torch.inference_mode():
            features: Tensor = self._folded(*inputs)
        return features.float()


class ImageFeatures(TowerFeatures[ImageModelTower]):
    """Features of images, from clean pixels or augmented views."""

    def of(self, pairs: Sequence[Pair], name: str) -> Tensor:
        """Return the features (N, F) of the pairs' images, preprocessed as they will be served. Raises ItemError."""
        return self._kept(
            lambda: self.key(pairs, "clean"),
            len(pairs),
            lambda rows: self.compute(pairs[rows.start : rows.stop], f"image features, {name}"),
        )

    def of_view(self, pairs: Sequence[Pair], augment: ImageAugment, view: int) -> Tensor:
        """Return the features (N, F) of the pairs' images, augmented, by the view's number. Raises ItemError."""
        settings = msgspec.json.encode(augment.config, order="sorted")
        description = f"image features, augmented view {view}"
        return self._kept(
            lambda: self.key(pairs, f"view {view}", settings),
            len(pairs),
            lambda rows: self.compute_view(pairs, augment, view, description)[rows.start : rows.stop],
        )

    def compute(self, pairs: Sequence[Pair], description: str) -> Tensor:
        """Return the features (N, F) of clean pixels, computed. Raises ItemError."""
        return self._joined(self.batches(pairs, description))

    def compute_view(self, pairs: Sequence[Pair], augment: ImageAugment, view: int, description: str) -> Tensor:
        """Return the features (N, F) of one augmented view of each image, computed. Raises ItemError."""
        return self._joined(self.view_batches(pairs, augment, view, description))

    def batches(self, pairs: Sequence[Pair], description: str) -> Iterator[Tensor]:
        """Yield what the tower gives for clean pixels, some images at a time. Raises ItemError."""
        spec, preprocess = self._tower.spec, self._tower.preprocess
        return self._run(
            pairs, description, lambda pair, i: torch.from_numpy(preprocess(decode_pair(pair, spec, i)))[0]
        )

    def view_batches(
        self, pairs: Sequence[Pair], augment: ImageAugment, view: int, description: str
    ) -> Iterator[Tensor]:
        """Yield what the tower gives for one augmented view of each image, some at a time. Raises ItemError."""
        return self._run(pairs, description, lambda pair, i: augment_pair(pair, augment, i, seed_of(view, i)))

    def key(self, pairs: Sequence[Pair], *variant: str | bytes) -> list[str | bytes]:
        """Return what decides these features: the tower, the image spec and its graph, the images, and `variant`."""
        spec = msgspec.json.encode(self._tower.spec, order="sorted")
        return ["image", *self._identity, spec, self._tower.graph, *variant, digest_texts(map(content_key, pairs))]

    def _run(self, pairs: Sequence[Pair], description: str, prepare: Callable[[Pair, int], Tensor]) -> Iterator[Tensor]:
        size = _IMAGE_BATCH[self._device.type] if self._folded is None else _STREAMED_IMAGE_BATCH
        batches = _batches(len(pairs), size)
        pixel_values = (
            torch.stack([prepare(pairs[i], i) for i in rows])  # (B, 3, S, S)
            for rows in batches
        )
        inputs = ((batch.contiguous(memory_format=torch.channels_last),) for batch in pixel_values)
        return self._evaluate(inputs, description, len(batches))


class TextFeatures(TowerFeatures[TextModelTower]):
    """Features of texts."""

    def of(self, texts: Sequence[str], name: str) -> Tensor:
        """Return the features (M, F) of texts, in their order."""
        return self._kept(
            lambda: self.key(texts),
            len(texts),
            lambda rows: self.compute(texts[rows.start : rows.stop], f"text features, {name}"),
        )

    def compute(self, texts: Sequence[str], description: str) -> Tensor:
        """Return the features (M, F) of texts, computed: each once, sorted by length, so that little is padding."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        features = self._joined(self.batches(distinct, description))  # (U, F)
        rows = {text: row for row, text in enumerate(distinct)}
        return features[torch.tensor([rows[text] for text in texts], dtype=torch.int64)]  # (M, F), as given

    def batches(self, texts: Sequence[str], description: str) -> Iterator[Tensor]:
        """Yield what the tower gives for texts, some at a time."""
        rows = _batches(len(texts), _TEXT_BATCH)
        inputs = (self._tower.tensors(self._tower.prepare(texts[some.start : some.stop])) for some in rows)
        return self._evaluate(inputs, description, len(rows))

    def lengths(self, texts: Sequence[str]) -> Tensor:
        """Return the number of tokens of each text, (M,)."""
        rows = _batches(len(texts), _TEXT_BATCH)
        masks = (self._tower.prepare(texts[some.start : some.stop])["attention_mask"] for some in rows)
        return torch.cat([torch.empty(0, dtype=torch.int64), *(torch.from_numpy(mask).sum(dim=1) for mask in masks)])

    def key(self, texts: Sequence[str], *variant: str) -> list[str | bytes]:
        """Return what decides these features: the tower with its pooling, the text spec, the tokenizer, the texts."""
        spec = msgspec.json.encode(self._tower.spec, order="sorted")
        return ["text", *self._identity, spec, self._tower.tokenizer.to_str(), *variant, digest_texts(texts)]


class PooledTextFeatures(TextFeatures):
    """Features of texts by a pool that learns over a tower that does not: token vectors are kept, in `cache_dir`."""

    def __init__(
        self, tower: TextModelTower, own: TextTower, cache_dir: Path, device: torch.device, world: World = ALONE
    ) -> None:
        super().__init__(msgspec.structs.replace(tower, backbone=PoolOfTower(own)), device, None, world)
        self._of_tokens = TextFeatures(msgspec.structs.replace(tower, backbone=TokensOfTower(own)), device)
        self._width = own.hidden_size
        self._token_cache = FeatureCache(cache_dir)
        self._tokens: dict[str, TokenStates] = {}  # mapped once, by the digest of their texts

    def of(self, texts: Sequence[str], name: str) -> Tensor:
        """Return the features (M, F) of texts, in their order, by the pool as it stands. Raises ConfigError."""
        tokens = self.tokens(texts, name)
        batches = _batches(len(texts), _TEXT_BATCH)
        return self._joined(self._evaluate(map(tokens.padded, batches), f"pooled texts, {name}", len(batches)))

    def tokens(self, texts: Sequence[str], name: str) -> TokenStates:
        """Return the token vectors of texts, mapped from disk. Raises ConfigError where they cannot be kept."""
        digest = digest_texts(texts)
        if digest not in self._tokens:
            self._tokens[digest] = self._kept_tokens(texts, name)
        return self._tokens[digest]

    def _kept_tokens(self, texts: Sequence[str], name: str) -> TokenStates:
        lengths = self._of_tokens.lengths(texts)
        order = torch.argsort(lengths, stable=True)  # so that little is padding: they are kept in this order
        ordered = [texts[i] for i in order.tolist()]
        with self._world.first_then_others():
            values = self._token_cache.mapped(
                self._of_tokens.key(ordered, "tokens"),
                lambda: self._of_tokens.batches(ordered, f"text tokens, {name}"),
                (int(lengths.sum()), self._width),
                what=f"the token vectors of {len(texts)} texts",
                instead="text_tower.pooling = 'mean'",
            )
        ends = torch.cumsum(lengths[order], dim=0)
        return TokenStates(values, (ends - lengths[order])[torch.argsort(order)], lengths)


class ModelFeatures:
    """The features of a model's towers, kept in `cache_dir`.

    With `is_training` the towers that are not frozen change between two calls, and nothing of theirs is kept but the
    token vectors that a pool learns over. All processes of a `world` ask for the same features, in the same order.
    """

    def __init__(
        self, model: DualModel, cache_dir: Path, device: torch.device, *, is_training: bool, world: World = ALONE
    ) -> None:
        def cache_of(tower: ModelTower) -> FeatureCache | None:
            return FeatureCache(cache_dir) if not is_training or is_frozen(tower.backbone) else None

        text_tower = model.text.backbone
        self.model = model
        self.world = world
        self.device = device
        self.images = ImageFeatures(model.image, device, cache_of(model.image), world)
        if is_training and isinstance(text_tower, TextTower) and pool_alone_learns(text_tower):
            self.texts: TextFeatures = PooledTextFeatures(model.text, text_tower, cache_dir, device, world)
        else:
            self.texts = TextFeatures(model.text, device, cache_of(model.text), world)


def _batches(num_items: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, num_items)) for start in range(0, num_items, batch_size)]


def content_key(pair: Pair) -> str:
    """Return what stands for an image's bytes; where only its path is known, with the file's size and time."""
    identity = image_identity(pair)
    if isinstance(pair.image, bytes) or not is_path_identity(identity):
        return identity
    try:
        status = pair.image.stat()
    except OSError:  # computing these features names the pair
        return identity
    return f"{identity}:{status.st_size}:{status.st_mtime_ns}"
