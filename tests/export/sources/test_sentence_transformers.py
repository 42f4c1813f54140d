"""sentence-transformers' CLIP, a text model beside it, and fewer components: each proven against its own `encode`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from mmalign_export import import_model
from mmalign_export.errors import ProofError, SourceError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_export.sources.protocol import Imported
from mmalign_export.to_bundle import export_imported
from mmalign_runtime import Embedder
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.verify import verify_bundle

Saved = Callable[[str], Path]
DIM = 24  # of the tiny CLIP


@pytest.fixture
def clip(saved: Saved, tmp_path: Path) -> Path:
    """The tiny CLIP as sentence-transformers keeps one."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "0_CLIPModel").symlink_to(saved("clip"))
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model with a dense layer to the CLIP's width, as the multilingual ones are."""
    encoder, folder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("words")
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
    SentenceTransformer(modules=[transformer, Pooling(32), dense], device="cpu").save(str(folder))
    return folder


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


def test_a_clip_is_proven_against_its_own_encode(clip: Path, image_files: list[GoldenFile], tmp_path: Path) -> None:
    spec = import_model(clip, tmp_path / "bundle", image_files=image_files)
    report = verify_bundle(tmp_path / "bundle")
    assert [case.detail for case in (*report.cases, *report.checks) if not case.passed] == []
    record = spec.provenance.imported
    assert record is not None
    assert record.reference.startswith("sentence-transformers 6.")
    assert spec.provenance.source.kind == "sentence_transformers"
    theirs = SentenceTransformer(str(clip), device="cpu").encode(["a dog", "two cats on a sofa"])
    lengths = np.linalg.norm(theirs, axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.1).all()  # not of unit length there
    ours = Embedder.load(tmp_path / "bundle").encode_text(["a dog", "two cats on a sofa"])
    np.testing.assert_allclose(ours, theirs / lengths, atol=1e-5)


def test_a_text_model_beside_it_and_fewer_components(
    clip: Path, words: Path, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    options = SourceOptions(text=str(words), dim=16)
    spec = import_model(clip, tmp_path / "bundle", options=options, image_files=image_files)
    assert spec.embed_dim == 16
    assert spec.towers["text"].architecture == "distilbert"
    theirs = SentenceTransformer(str(words), device="cpu").encode(["ein Hund", "zwei Katzen"])[:, :16]
    ours = Embedder.load(tmp_path / "bundle").encode_text(["ein Hund", "zwei Katzen"])
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-5)


def test_another_text_tower_is_refused(clip: Path, words: Path, image_files: list[GoldenFile], tmp_path: Path) -> None:
    """The towers of one import held to the pipeline of another."""
    with_words = read_source("sentence_transformers", clip, SourceOptions(text=str(words)))
    alone = read_source("sentence_transformers", clip)
    mixed = Imported(model=with_words.model, original=alone.original)
    with pytest.raises(ProofError, match=r"token ids: .* other ids than sentence-transformers"):
        export_imported(mixed, tmp_path / "bundle", image_files=image_files)


def test_what_is_no_clip_is_refused(clip: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"consists of Transformer, Pooling, Dense; .* give this one with --text"):
        read_source("sentence_transformers", words)
    with pytest.raises(SourceError, match="--dim 25 is more than the 24 components"):
        read_source("sentence_transformers", clip, SourceOptions(dim=25))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "mmalign_export.sources.sentence_transformers_original", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-export\[sentence-transformers\]'"):
        read_source("sentence_transformers", clip)
