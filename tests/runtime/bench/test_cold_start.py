from pathlib import Path

import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bench.cold_start import time_cold_start
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.errors import EngineError


def test_a_process_that_fails_says_why(tiny_bundle: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu", num_threads=1) as embedder:
        embedder.info()
        (tiny_bundle / "onnx" / "vision_model.onnx").unlink()
        with pytest.raises(EngineError, match=r"could not embed its first item.*vision_model\.onnx"):
            time_cold_start(embedder, "image", 1)


def test_an_archive_starts_too(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.mmalign"
    pack_bundle(tiny_bundle, path)
    with Embedder.load(path, provider="cpu", num_threads=1, lazy=True) as embedder:
        found = time_cold_start(embedder, "image", 1)
    assert found.num_starts == 1 and found.total_ms > found.load_ms > 0
