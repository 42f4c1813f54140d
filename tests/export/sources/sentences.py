"""Tiny models as sentence-transformers keeps them: a CLIP, and a text model beside it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from mmalign_export.sources.proof_texts import PROOF_TEXTS

DIM = 24  # of the tiny CLIP


def save_clip(saved: Path, folder: Path) -> Path:
    """Write the file that tells sentence-transformers of a CLIP that transformers saved, and a link to it."""
    folder.mkdir()
    (folder / "0_CLIPModel").symlink_to(saved)
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def save_words(folder: Path) -> Path:
    """Write a text model with a dense layer to the CLIP's width, as the multilingual ones are."""
    encoder = folder / "encoder"
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(vocab_size=700, dim=32, hidden_dim=48, n_layers=2, n_heads=2)
    model = transformers.DistilBertModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(encoder)
    _tokenizer().save_pretrained(encoder)
    dense = Dense(32, DIM, bias=False, activation_function=torch.nn.Identity())
    torch.nn.init.normal_(dense.linear.weight, std=0.3)
    transformer = Transformer(str(encoder), max_seq_length=40)
    SentenceTransformer(modules=[transformer, Pooling(32), dense], device="cpu").save(str(folder / "model"))
    return folder / "model"


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.normalizer, found.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    found.train_from_iterator(
        PROOF_TEXTS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
