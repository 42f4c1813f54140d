from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import BundleError, ProviderError
from mmalign_runtime.session import OnnxSession, SessionOptions

CPU = SessionOptions(provider="cpu", num_threads=1)


def test_a_file_that_is_no_model_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"broken\.onnx cannot be loaded by onnxruntime"):
        OnnxSession(path, CPU)


def test_placement_counts_the_nodes_of_each_provider(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    placement = OnnxSession(bundle.file(bundle.spec.image.models["fp32"]), CPU).placement()
    assert list(placement) == ["CPUExecutionProvider"]
    assert placement["CPUExecutionProvider"] > 0


def test_run_returns_the_only_output(tiny_bundle: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    session = OnnxSession(tiny_bundle / spec.image.models["fp32"], CPU)
    size = spec.image.spec.size
    output = session.run({spec.image.input_name: np.zeros((3, 3, size, size), np.float32)})
    assert output.shape == (3, spec.embed_dim)
    assert output.dtype == np.float32


def test_a_provider_that_silently_falls_back_is_an_error(tiny_bundle: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA: nothing falls back")
    path = tiny_bundle / open_bundle(tiny_bundle).spec.image.models["fp32"]
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match="'cuda' was asked for and onnxruntime fell back to CPU"),
    ):
        OnnxSession(path, SessionOptions(provider="cuda", num_threads=1))
