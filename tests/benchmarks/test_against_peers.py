"""Every peer that is installed gives the vectors of eager PyTorch: on tiny towers, as its process gives them."""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from benchmarks.against.entries import Entry, ours, peers
from benchmarks.against.models import ModelSource, prepare_files
from benchmarks.against.oracle import Oracle
from benchmarks.against.processes import PeerError, PeerProcess
from benchmarks.against.protocol import (
    Kind,
    Load,
    Loaded,
    Measure,
    Measured,
    ModelFiles,
    Setting,
)
from benchmarks.against.results import cosine
from benchmarks.against.worker import serve
from benchmarks.harness.places import FASTEMBED_PYTHON
from mmalign.config import parse_config
from mmalign.run import create_run
from mmalign.run.model import dual_model
from mmalign_export import export_model
from mmalign_export.golden import golden_files
from tests.make_tiny_bundle import tiny_tokenizer

LARGE_BYTES = 200_000  # a camera's photographs take longer than everything else here
PHOTO = Path(__file__).resolve().parents[2] / "export/mmalign_export/photo/grace_hopper.jpg"
TEXTS = ("a dog", "the quick brown fox jumps over the lazy dog on the beach")  # of one shape, for what compiles each
# PIL and torchvision resize as the graph does, but for a level; tiny random towers make more of that than trained ones.
BOUND = 0.999
ENTRIES = {entry.name: entry for entry in [*ours(["fp32"]), *peers(1)] if entry.name != "eager-tuned"}
HERE = ("eager", "onnxruntime")  # asked as a process is, but in this one: it has imported what they import


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    folder = tmp_path_factory.mktemp("against")
    tokenizer = tiny_tokenizer()
    (folder / "bert").mkdir()
    tokenizer.save(str(folder / "bert/tokenizer.json"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes).save_pretrained(folder / "bert")
    settings = {
        "data": {"sources": [{"path": "none.csv"}]},
        "image": {"size": 64},
        "text": {"context_length": 16},
        "model": {"embed_dim": 16},
        "image_tower": {"name": "timm:test_resnet", "weights": "random"},
        "text_tower": {"name": str(folder / "bert"), "weights": "random", "pooling": "mean"},
    }
    run = create_run(parse_config(settings, "tiny"), folder / "run")
    run.model.eval()
    small = [file for file in golden_files(()) if len(file.data) < LARGE_BYTES]
    export_model(dual_model(run), folder / "bundle", image_files=small[:3])
    return ModelSource("tiny", folder / "bundle", folder / "run")


@pytest.fixture(scope="module")
def files(source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return prepare_files(source, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", HERE)
def test_a_peer_that_is_asked_here_gives_the_vectors_of_pytorch(
    name: str, source: ModelSource, files: ModelFiles, tmp_path: Path
) -> None:
    entry, oracle, items = ENTRIES[name], Oracle(source.run), {"image": _images(tmp_path), "text": TEXTS}
    here, there = Pipe()
    worker = threading.Thread(target=serve, args=(there, there))
    worker.start()
    with here:
        here.send(Load(entry.peer, files, 1, entry.precision, entry.engine, entry.spin_us))
        loaded = here.recv()
        assert isinstance(loaded, Loaded)
        assert loaded.versions
        for kind in entry.settings:
            here.send(Measure(kind, items[kind], _plain(kind), lead_in=0, give_vectors=True))
            measured = here.recv()
            assert isinstance(measured, Measured)
            vectors = np.frombuffer(measured.vectors, np.float32).reshape(len(items[kind]), -1)
            assert cosine(vectors, oracle.vectors(kind, items[kind])).lowest > BOUND, kind
    worker.join()


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in HERE])
def test_a_peer_gives_the_vectors_of_pytorch(name: str, source: ModelSource, files: ModelFiles, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    python = _python_or_skip(entry)
    oracle, items = Oracle(source.run), {"image": _images(tmp_path), "text": TEXTS}
    with PeerProcess(entry, python, files, 1, tmp_path / "log") as process:
        for kind in entry.settings:
            vectors = process.vectors(Measure(kind, items[kind], _plain(kind)))
            assert cosine(vectors, oracle.vectors(kind, items[kind])).lowest > BOUND, kind
        assert process.versions
        assert process.cpu_s() > 0


def test_a_peer_that_cannot_load_says_why(files: ModelFiles, tmp_path: Path) -> None:
    (entry,) = ours(["int8"])
    with pytest.raises(PeerError, match="no int8 file"):
        PeerProcess(entry, Path(sys.executable), files, 1, tmp_path / "log")
    with pytest.raises(PeerError, match="make against"):
        PeerProcess(entry, tmp_path / "python", files, 1, tmp_path / "log")


def _images(folder: Path) -> tuple[str, ...]:
    """Return a photograph and a part of it."""
    with Image.open(PHOTO) as photo:
        photo.crop((40, 0, 340, 211)).save(folder / "part.png")
    return str(PHOTO), str(folder / "part.png")


def _plain(kind: Kind) -> Setting:
    return Setting(batch_size=2) if kind == "text" else Setting()


def _python_or_skip(entry: Entry) -> Path:
    if entry.peer == "fastembed":
        if not FASTEMBED_PYTHON.is_file():
            pytest.skip("fastembed's environment is not there: make against-setup")
        return FASTEMBED_PYTHON
    if entry.peer == "sentence-transformers" and find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed here: make against-setup, and run with its interpreter")
    return Path(sys.executable)
