"""Tiny towers and data, made on the spot: a text encoder with a word-level tokenizer, and two dozen coloured images."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from benchmarks.demo.packages import register_demo_packages
from mmalign.config import Config, parse_config
from mmalign.losses.protocol import LossConfig
from mmalign.model import DualEncoder, ModelConfig
from mmalign.towers.text import create_text_tower
from mmalign.towers.vision import ImageTower

register_demo_packages()

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("square", "bar", "frame")
SPLIT_SEED = 59  # puts six, three and three of the twelve concepts on the three sides
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., DualEncoder]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """On tiny tensors threads only wait for each other, and on a busy machine for a long time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def text_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it, with a BERT of two narrow layers and no weights: they are random."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    words = [*SPECIAL_TOKENS, "a", "the", "picture", "of", *COLORS, *SHAPES]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"model_type": "bert", "intermediate_size": 48, "max_position_embeddings": 24, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def pairs_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 12 concepts (colour and shape), two drawings of each, with two captions and the colour as class."""
    folder = tmp_path_factory.mktemp("pairs")
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "other", "concept", "color"])
        for drawing, (color, shape) in itertools.product(range(2), itertools.product(COLORS, SHAPES)):
            name = f"{color}-{shape}-{drawing}.png"
            draw(color, shape, drawing).save(folder / name)
            writer.writerow(
                [name, f"a {color} {shape}", f"the picture of a {color} {shape}", f"{color}-{shape}", color]
            )
    return folder / "pairs.csv"


@pytest.fixture
def make_config(text_encoder_dir: Path, pairs_csv: Path, tmp_path: Path) -> MakeConfig:
    """Return a function that makes the tiny configuration, with some keys ("train.epochs") set otherwise."""

    def make(settings: dict[str, object] | None = None) -> Config:
        columns = {"caption_columns": ["caption", "other"], "concept_column": "concept", "group_column": "color"}
        tables: dict[str, dict[str, object]] = {
            "data": {
                "sources": [{"path": str(pairs_csv), **columns}],
                "split": {"val": 0.25, "test": 0.25, "seed": SPLIT_SEED},
            },
            "image": {"size": 32},
            "text": {"context_length": 12},
            "image_tower": {"name": "timm:test_resnet", "weights": "random"},
            "text_tower": {"name": str(text_encoder_dir), "weights": "random", "pooling": "mean"},
            "model": {"embed_dim": 16},
            "train": {"epochs": 2, "batch_size": 4, "device": "cpu", "cache_dir": str(tmp_path / "cache")},
        }
        for key, value in (settings or {}).items():
            table, name = key.split(".")
            tables.setdefault(table, {})[name] = value
        return parse_config(tables, "the test's configuration")

    return make


@pytest.fixture
def make_model() -> MakeModel:
    """Return a function that makes a seeded model with 5 image features and 6 text features."""

    def make(config: ModelConfig | None = None, seed: int = 0, loss: LossConfig | None = None) -> DualEncoder:
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
        bert = transformers.BertConfig(vocab_size=11, hidden_size=6, num_hidden_layers=1, num_attention_heads=2)
        bert.intermediate_size, bert.max_position_embeddings = 7, 12
        towers = ImageTower(backbone, 5), create_text_tower(bert, "mean")
        return DualEncoder(*towers, config or ModelConfig(embed_dim=4), loss)

    return make


def draw(color: str, shape: str, drawing: int) -> Image.Image:
    """Draw a shape on a noisy ground, the same each time."""
    rng = np.random.default_rng([drawing, *COLORS[color], len(shape)])
    pixels = rng.integers(200, 256, (36 + 4 * drawing, 40, 3), dtype=np.uint8)
    top, left = rng.integers(0, 8, 2)
    region = {"square": np.s_[8:28, 10:30], "bar": np.s_[14:20, 2:38], "frame": np.s_[4:30, 6:34]}[shape]
    rolled = np.roll(pixels, (-top, -left), (0, 1))
    rolled[region] = COLORS[color]
    if shape == "frame":
        rolled[10:24, 12:28] = 240
    return Image.fromarray(np.roll(rolled, (top, left), (0, 1)))
