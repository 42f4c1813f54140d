import logging
import os
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import Embedder, ProviderError, verify_bundle
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.onnxruntime import OnnxRuntimeEngine
from mmalign_runtime.engine.optimized import GRAPH_NAME, WEIGHTS_NAME, OptimizedGraph
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Model, SessionOptions
from mmalign_runtime.errors import BundleIntegrityError, EngineError

IMAGE = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; the folder of its graphs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmalign" / "optimized"


def write_words(folder: Path) -> None:
    (folder / GRAPH_NAME).write_text("graph")
    (folder / WEIGHTS_NAME).write_text("weights")


def made() -> OptimizedGraph:
    graph = OptimizedGraph("a" * 64, "1.0")
    graph.make(write_words)
    return graph


def test_a_kept_graph_gives_the_same_vectors_to_the_bit(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, embedder: Embedder
) -> None:
    Embedder.load(tiny_bundle, provider="cpu", num_threads=2, cache=True).close()
    monkeypatch.delattr(OptimizedGraph, "make")  # the second load makes nothing
    with Embedder.load(tiny_bundle, provider="cpu", num_threads=2, cache=True) as kept:
        assert kept.info().cache
        np.testing.assert_array_equal(kept.encode_image([IMAGE] * 3), embedder.encode_image([IMAGE] * 3))
        np.testing.assert_array_equal(kept.encode_text(["a dog", ""]), embedder.encode_text(["a dog", ""]))


def test_a_kept_graph_is_verified_like_any_other(tiny_bundle: Path) -> None:
    for _ in range(2):
        Embedder.load(tiny_bundle, provider="cpu", num_threads=2, cache=True, verify="golden").close()


def test_weights_lie_beside_the_graph_and_hold_nearly_all(tiny_bundle: Path, cache: Path) -> None:
    Embedder.load(tiny_bundle, provider="cpu", towers=("image",), cache=True).close()
    (folder,) = cache.iterdir()
    assert (folder / WEIGHTS_NAME).stat().st_size > (folder / GRAPH_NAME).stat().st_size


@pytest.mark.parametrize("name", [GRAPH_NAME, WEIGHTS_NAME])
def test_a_changed_graph_is_made_again(
    tiny_bundle: Path, cache: Path, embedder: Embedder, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    Embedder.load(tiny_bundle, provider="cpu", towers=("image",), cache=True).close()
    (folder,) = cache.iterdir()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with (
        caplog.at_level(logging.WARNING),
        Embedder.load(tiny_bundle, provider="cpu", num_threads=2, towers=("image",), cache=True) as again,
    ):
        np.testing.assert_array_equal(again.encode_image([IMAGE]), embedder.encode_image([IMAGE]))
    assert "was changed, and is made again" in caplog.text


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff"])
def test_a_damaged_record_is_no_record(record: bytes, caplog: pytest.LogCaptureFixture) -> None:
    graph = made()
    (graph.folder / "record.json").write_bytes(record)
    assert graph.path() is None
    assert "cannot be used" in caplog.text


def test_a_graph_without_its_weights_is_none() -> None:
    graph = made()
    (graph.folder / WEIGHTS_NAME).unlink()
    assert graph.path() is None


def test_a_graph_that_was_merely_touched_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = made()
    os.utime(graph.folder / WEIGHTS_NAME)
    assert graph.path() == graph.folder / GRAPH_NAME
    monkeypatch.delattr("mmalign_runtime.engine.optimized.sha256_of_file")
    assert graph.path() == graph.folder / GRAPH_NAME


def test_what_another_process_made_meanwhile_is_left_alone() -> None:
    graph = made()
    before = (graph.folder / GRAPH_NAME).stat().st_ino
    assert graph.make(write_words) == graph.folder / GRAPH_NAME
    assert (graph.folder / GRAPH_NAME).stat().st_ino == before
    assert [path.name for path in graph.folder.parent.iterdir()] == [graph.folder.name]


def test_a_making_that_fails_leaves_nothing(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        OptimizedGraph("a" * 64, "1.0").make(lambda folder: 1 / 0)
    assert list(cache.iterdir()) == []


def test_another_model_version_or_processor_has_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [OptimizedGraph("a" * 64, "1.0").folder, OptimizedGraph("b" * 64, "1.0").folder]
    places.append(OptimizedGraph("a" * 64, "1.1").folder)
    monkeypatch.setattr("mmalign_runtime.engine.optimized.cpu_features", lambda: "fpu")
    places.append(OptimizedGraph("a" * 64, "1.0").folder)
    assert len(set(places)) == len(places)


def test_without_a_place_to_keep_it_loading_fails(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot be kept in .*: Not a directory.*leave out cache"):
        Embedder.load(tiny_bundle, provider="cpu", cache=True)
    monkeypatch.setattr("mmalign_runtime.engine.optimized.cache_dir", lambda: None)
    with pytest.raises(EngineError, match="Set XDG_CACHE_HOME"):
        OptimizedGraph("a" * 64, "1.0")


def test_graphs_for_a_gpu_are_not_kept() -> None:
    options = SessionOptions("cuda", thread_pool(1), cache=True)
    with pytest.raises(ProviderError, match="kept for provider 'cpu'"):
        OnnxRuntimeEngine().open(Model(b"", "model", (), sha256="a"), options)


def test_verify_does_not_keep_its_probe(tiny_bundle: Path, cache: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu", verify="golden", cache=True):
        assert len(list(cache.iterdir())) == 2
    assert verify_bundle(tiny_bundle, provider="cpu").passed


def test_what_is_kept_is_the_file_that_the_bundle_lists(tiny_bundle: Path, cache: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    text, image = (tiny_bundle / spec.artifact(tower).file for tower in ("text", "image"))
    text.write_bytes(image.read_bytes())
    with pytest.raises(BundleIntegrityError, match="is not the file that its bundle lists"):
        Embedder.load(tiny_bundle, provider="cpu", towers=("text",), verify=None, cache=True)
    assert list(cache.iterdir()) == []
