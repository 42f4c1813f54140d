"""Makes tests/runtime/fixtures/tiny_bundle with the real exporter: tiny random towers, every golden case.

The runtime's tests run where there is no torch, so their bundle is committed. Make it again when the bundle format or a
golden case changes: python tests/make_tiny_bundle.py
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mmalign.config import parse_config
from mmalign.model import DualEncoder
from mmalign.run import Run, RunFolder
from mmalign.run.model import dual_model
from mmalign.towers.text import create_text_tower
from mmalign.towers.vision import create_image_tower
from mmalign_export import export_model
from mmalign_export.golden import golden_files

OUT = Path(__file__).parent / "runtime" / "fixtures" / "tiny_bundle"
# Golden files over this are left out: beside a source tree they would only be stored.
_SMALL_FILE_BYTES = 200_000
_CORPUS = [
    "a photo of a dog running on the beach",
    "the quick brown fox jumps over the lazy dog",
    "good dog best seller",
]


def tiny_tokenizer() -> Tokenizer:
    """Return a WordPiece tokenizer of letters and a few words, with BERT's template.

    It is written down and not trained: tokenizers' trainers break ties in another order in each process, and tests
    compare a bundle that one process made with what another one computes.
    """
    letters = sorted({letter for line in _CORPUS for letter in line if letter != " "})
    words = sorted({word for line in _CORPUS for word in line.split() if len(word) > 1})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    unused = [f"[unused{at}]" for at in range(30)]  # as BERT's vocabularies have them
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words, *unused]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def tiny_run(folder: Path) -> Run:
    """Return a run of tiny, seeded random towers; nothing is written to `folder`."""
    settings = {
        "data": {"sources": [{"path": "none.csv"}]},
        "image": {"size": 64},
        "text": {"context_length": 16},
        "model": {"embed_dim": 16},
        "image_tower": {"name": "timm:test_resnet", "weights": "random"},
        "text_tower": {"weights": "random", "pooling": "mean"},
    }
    config = parse_config(settings, "tiny")
    tokenizer = tiny_tokenizer()
    architecture = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    model = DualEncoder(
        create_image_tower("timm:test_resnet"), create_text_tower(architecture, "mean"), config.model
    ).eval()
    return Run(RunFolder(folder), config, model, tokenizer)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        small = [file for file in golden_files(()) if len(file.data) <= _SMALL_FILE_BYTES]
        export_model(dual_model(tiny_run(Path(folder))), OUT, force=True, image_files=small)
