from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import Embedder, ProviderError
from mmalign_runtime.engine.engines import find_engine, installed_engines
from mmalign_runtime.engine.onnxruntime import OnnxRuntimeEngine
from mmalign_runtime.engine.session import run_failed
from mmalign_runtime.errors import MissingDependencyError


class ElsewhereEngine(OnnxRuntimeEngine):
    """What another distribution would bring."""

    name = "elsewhere"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("elsewhere", f"{__name__}:ElsewhereEngine", "mmalign.engines")
    monkeypatch.setattr(EntryPoint, "load", lambda self: ElsewhereEngine)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])


def test_an_engine_of_another_distribution_runs_the_towers(tiny_bundle: Path, elsewhere: None) -> None:
    assert "elsewhere" in installed_engines()
    with Embedder.load(tiny_bundle, engine="elsewhere", provider="cpu", towers=("text",)) as embedder:
        assert embedder.encode_text(["a dog"]).shape == (1, embedder.embed_dim)
        info = embedder.info()
    assert (info.engine, info.engine_version) == ("elsewhere", OnnxRuntimeEngine().version())


def test_an_unknown_engine_is_refused_with_the_known_ones(tiny_bundle: Path, elsewhere: None) -> None:
    with pytest.raises(
        ProviderError, match=r"engine 'tvm' is not known; choose one of onnxruntime, openvino, .*elsewhere"
    ):
        Embedder.load(tiny_bundle, engine="tvm")


def test_an_engine_that_is_not_installed_is_refused_with_its_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-export\[cpu\]'"):
        find_engine("aotinductor")


def test_the_default_engine_comes_first() -> None:
    assert installed_engines()[0] == "onnxruntime"


def test_bfloat16_is_refused_by_onnxruntime_with_the_engine_that_has_it(tiny_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="Ask for engine 'openvino'"):
        Embedder.load(tiny_bundle, provider="cpu", precision="bf16", lazy=True)


def test_an_engine_that_does_not_load_says_why_and_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("broken", "no_such_module:Engine", "mmalign.engines")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    assert "broken" not in installed_engines()
    with pytest.raises(MissingDependencyError, match="does not load: No module named 'no_such_module'"):
        find_engine("broken")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (MemoryError("std::bad_alloc"), "Use a smaller batch_size, or free some memory"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 12"), "Use a smaller batch_size"),
        (RuntimeError("CUDA error: out of memory"), "Use a smaller batch_size"),
        (RuntimeError("Got invalid dimensions for input"), "Run `mmalign verify`"),
    ],
)
def test_a_smaller_batch_is_advised_only_where_memory_ran_out(error: Exception, fix: str) -> None:
    message = str(run_failed("tower.onnx", {"x": np.zeros((2, 3), np.float32)}, error))
    assert message.startswith(f"tower.onnx failed on x (2, 3): {error} {fix}")
    assert ("batch_size" in message) == ("batch_size" in fix)
