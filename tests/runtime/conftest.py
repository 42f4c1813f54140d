"""The tiny bundle that the runtime's tests share: a copy for those that change it, a loaded embedder for the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmalign_runtime import Embedder, text_stream
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, decode_spec, encode_spec

_TINY_BUNDLE = Path(__file__).parent / "fixtures" / "tiny_bundle"

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remember hashes in a folder of the tests' own, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A bundle's folder that the test may change."""
    return shutil.copytree(_TINY_BUNDLE, tmp_path / "bundle")


@pytest.fixture
def edit_spec(tiny_bundle: Path) -> SpecEdit:
    """Rewrite the tiny bundle's spec and seal it again, as its maker would."""

    def edit(change: Callable[[BundleSpec], BundleSpec]) -> None:
        path = tiny_bundle / SPEC_NAME
        path.write_bytes(encode_spec(change(decode_spec(path.read_bytes()))))

    return edit


@pytest.fixture
def window_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows of texts end with each batch, so that few texts make many parts."""
    monkeypatch.setattr(text_stream, "WINDOW_BATCHES", 1)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """Both towers of the tiny bundle, on the CPU with two threads."""
    return Embedder.load(_TINY_BUNDLE, provider="cpu", num_threads=2)
