"""A model that mmalign did not train: two small hand-written modules, with no run, no folder and no transformers."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, Similarity, TextModelTower
from mmalign.signature import image_inputs, text_inputs
from mmalign_runtime.spec import ImageSpec, TextSpec

DIM = 12
IMAGE = ImageSpec(size=48, resize="shortest_edge", shortest_edge=56, interpolation="bicubic")
TEXT = TextSpec(context_length=10)
_WORDS = (
    "[PAD]",
    "[UNK]",
    "a",
    "the",
    "dog",
    "best",
    "seller",
    "quick",
    "fox",
    "over",
    "lazy",
    "on",
    "beach",
    "b",
    "c",
)


class ConvNet(nn.Module):
    """Two convolutions and a mean, (B, 3, S, S) -> (B, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, DIM, 3, 2))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return features."""
        features: Tensor = self.layers(pixel_values).mean(dim=(2, 3))  # (B, DIM)
        return features


class WordSum(nn.Module):
    """The sum of the words' vectors, those of padding left out by their ids: it takes no mask. (B, L) -> (B, DIM)."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, DIM)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return features."""
        is_first = torch.arange(input_ids.shape[1]) == 0  # of an empty text padding is all there is
        kept = (is_first | (input_ids != TEXT.pad_token_id)).unsqueeze(-1)  # (B, L, 1)
        features: Tensor = (self.words(input_ids) * kept).sum(dim=1)  # (B, DIM)
        return features


class MaskedWordSum(WordSum):
    """The same, by its mask."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Return features."""
        features: Tensor = (self.words(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1)  # (B, DIM)
        return features


def own_model(*, has_mask: bool = True) -> DualModel:
    """Return a seeded model of these modules; its text tower takes input_ids alone where it has no mask."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    inputs = text_inputs(TEXT)
    image = ImageModelTower(
        backbone=ConvNet(),
        feature_dim=DIM,
        embed_dim=DIM,
        inputs=image_inputs(IMAGE),
        architecture="two convolutions",
        definition="conv 5/2, ReLU, conv 3/2, mean",
        spec=IMAGE,
    )
    text = TextModelTower(
        backbone=(MaskedWordSum if has_mask else WordSum)(tokenizer.get_vocab_size()),
        feature_dim=DIM,
        embed_dim=DIM,
        inputs=inputs if has_mask else inputs[:1],
        architecture="sum of words",
        definition="sum of words",
        spec=TEXT,
        tokenizer=tokenizer,
    )
    return DualModel(
        towers={"image": image, "text": text},
        similarity=Similarity(kind="softmax", scale=25.0),
        origin=ModelOrigin(kind="modules", name="two small modules", weights_licence="CC0-1.0"),
    )


def _tokenizer() -> Tokenizer:
    """Return a tokenizer of whole words; a text of none is one padding token, as the runtime has it."""
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
