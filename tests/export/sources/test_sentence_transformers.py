"""sentence-transformers' CLIP, a text model beside it, and fewer components: each proven against its own `encode`."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from mmalign.space import space_id
from mmalign_export import import_model
from mmalign_export.errors import ProofError, SourceError
from mmalign_export.golden import GoldenFile, golden_texts, make_golden
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.proof import prove_model
from mmalign_export.sources.protocol import Imported
from mmalign_export.to_bundle import export_imported
from mmalign_runtime import Embedder
from mmalign_runtime.errors import MissingDependencyError, MmalignError
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.sentences import save_clip, save_words

Saved = Callable[[str], Path]
WEIGHTS = "model.safetensors"
CONFIG = "config_sentence_transformers.json"


@pytest.fixture
def clip(saved: Saved, tmp_path: Path) -> Path:
    return save_clip(saved("clip"), tmp_path / "clip")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("words"))


@pytest.mark.usefixtures("traced_once")
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


@pytest.mark.usefixtures("traced_once")
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


def _prove(imported: Imported, files: list[GoldenFile], tmp_path: Path) -> None:
    assert imported.original is not None
    texts = golden_texts((), imported.model.text.spec.context_length)
    golden = make_golden(imported.model, files, texts, tmp_path / "golden")
    prove_model(imported.model, imported.original, files, golden)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_proven_in_float32(
    dtype: torch.dtype, saved: Saved, words: Path, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    folders = [shutil.copytree(saved("clip"), tmp_path / "saved"), shutil.copytree(words, tmp_path / "words")]
    for folder in folders:
        _state(folder / WEIGHTS, lambda state: state.update({name: each.to(dtype) for name, each in state.items()}))
        _config(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    clip = save_clip(folders[0], tmp_path / "clip")
    imported = read_source("sentence_transformers", clip, SourceOptions(text=str(folders[1])))
    _prove(imported, image_files, tmp_path)


def test_a_text_model_that_cuts_the_beginning_of_a_text_does_so_here(
    clip: Path, words: Path, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    folder = shutil.copytree(words, tmp_path / "words")
    _config(folder / "tokenizer_config.json", truncation_side="left")
    imported = read_source("sentence_transformers", clip, SourceOptions(text=str(folder)))
    assert imported.model.text.spec.truncation_side == "left"
    _prove(imported, image_files, tmp_path)


def test_the_components_that_a_configuration_keeps_are_kept(
    clip: Path, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    (clip / CONFIG).write_text(json.dumps({"truncate_dim": 16}))
    stated = read_source("sentence_transformers", clip)
    assert stated.model.embed_dim == 16
    _prove(stated, image_files, tmp_path)
    asked = read_source("sentence_transformers", clip, SourceOptions(dim=20))  # as encode(..., truncate_dim=20) does
    assert asked.model.embed_dim == 20
    _prove(asked, image_files, tmp_path / "asked")
    assert space_id(asked.model) != space_id(stated.model)
    again = read_source("sentence_transformers", clip, SourceOptions(dim=16))
    assert space_id(again.model) == space_id(stated.model)


WHAT_CHANGES_VECTORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a prompt before every text": (
        lambda clip: (clip / CONFIG).write_text(json.dumps({"prompts": {"q": "find "}, "default_prompt_name": "q"})),
        r"puts the prompt 'find ' before every text",
    ),
    "a layer behind the CLIP": (lambda clip: _add_module(clip, "Dense"), r"has Dense behind its CLIPModel"),
    "a CLIP that is read for texts alone": (
        lambda clip: _rename_module(clip, "sentence_transformers.base.modules.transformer.Transformer"),
        r"pixel_values raised ValueError: Modality 'image' .* proven against sentence-transformers",
    ),
}


@pytest.mark.parametrize("case", WHAT_CHANGES_VECTORS)
def test_what_sentence_transformers_adds_and_is_not_imported_is_refused(
    case: str, clip: Path, image_files: list[GoldenFile], tmp_path: Path
) -> None:
    change, match = WHAT_CHANGES_VECTORS[case]
    change(clip)
    with pytest.raises(MmalignError, match=match):
        _prove(read_source("sentence_transformers", clip), image_files, tmp_path)


def _add_module(clip: Path, kind: str) -> None:
    modules = json.loads((clip / "modules.json").read_text())
    more = {"idx": 1, "name": "1", "path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"}
    (clip / "modules.json").write_text(json.dumps([*modules, more]))


def _rename_module(clip: Path, kind: str) -> None:
    (module,) = json.loads((clip / "modules.json").read_text())
    (clip / "modules.json").write_text(json.dumps([module | {"type": kind}]))


def _config(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_what_is_no_clip_is_refused(clip: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"consists of Transformer, Pooling, Dense; .* give this one with --text"):
        read_source("sentence_transformers", words)
    with pytest.raises(SourceError, match=r"25 components are to be kept \(--dim, .*Give --dim 1 to 24"):
        read_source("sentence_transformers", clip, SourceOptions(dim=25))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-export\[sentence-transformers\]'"):
        read_source("sentence_transformers", clip)


def _state(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def _as_int8(path: Path) -> None:
    _state(path, lambda state: state.update({name: (each * 10).to(torch.int8) for name, each in state.items()}))


def _code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Own"}}))


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Path.touch}))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "eight bits": (lambda folder: _as_int8(folder / WEIGHTS), "of its tensors are of I8"),
    "a layer of eight bits": (lambda folder: _as_int8(folder / "2_Dense" / WEIGHTS), "1 of its tensors are of I8"),
    "a surplus tensor": (
        lambda folder: _state(folder / WEIGHTS, lambda state: state.update(extra=torch.ones(2))),
        r"1 surplus \(extra\)",
    ),
    "not finite": (
        lambda folder: _state(folder / "2_Dense" / WEIGHTS, lambda state: state["linear.weight"].fill_(torch.nan)),
        r"tensor dense\.0\.weight holds values that are not finite",
    ),
    "code": (_code, "asks for code that lies beside the weights"),
    "a pickle": (_pickle, "cannot be read as weights alone"),
    "a pointer": (
        lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid"),
        "pointer of Git LFS",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights that its library reads"),
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "holds no tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_text_model_is_refused_by_name(case: str, clip: Path, words: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(words, tmp_path / "words")
    change, match = BROKEN[case]
    change(folder)
    with pytest.raises(SourceError, match=match):
        read_source("sentence_transformers", clip, SourceOptions(text=str(folder)))


def test_a_head_of_pretraining_is_left_aside(clip: Path, words: Path, tmp_path: Path) -> None:
    """As transformers' own checkpoints have it: the encoder below its prefix, the head beside it."""
    folder = shutil.copytree(words, tmp_path / "words")

    def pretrained(state: dict[str, torch.Tensor]) -> None:
        encoder = {f"distilbert.{name}": state.pop(name) for name in list(state)}
        state.update(encoder | {"vocab_projector.bias": torch.ones(2), "vocab_layer_norm.weight": torch.ones(2)})

    _state(folder / WEIGHTS, pretrained)
    options = [SourceOptions(text=str(path)) for path in (words, folder)]
    plain, found = (read_source("sentence_transformers", clip, each).model.towers["text"].backbone for each in options)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), found.parameters(), strict=True))
