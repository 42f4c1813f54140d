from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.errors import (
    BundleError,
    BundleIntegrityError,
    EmbedderStateError,
    EngineError,
    ProviderError,
)

CPU = SessionOptions("cpu", thread_pool(1))


def vision(bundle: Path) -> OnnxSession:
    opened = open_bundle(bundle)
    name = opened.spec.artifact("image").file
    return OnnxSession(opened.source(name), name, CPU)


def external_model(location: str) -> bytes:
    """A model's bytes, field by field: a graph whose one initializer lies in another file."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entry = field(1, b"location") + field(2, location.encode())
    tensor = field(8, b"w") + field(13, entry) + bytes([14 << 3, 1])
    return bytes([1 << 3, 8]) + field(7, field(5, tensor))


def test_a_file_that_is_no_model_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"broken\.onnx (is not an ONNX model|cannot be loaded)"):
        OnnxSession(path, path.name, CPU)


def test_placement_counts_the_nodes_of_each_provider_and_operator(tiny_bundle: Path) -> None:
    placement = vision(tiny_bundle).placement()
    assert {group.provider for group in placement} == {"CPUExecutionProvider"}
    assert [group.num_nodes for group in placement] == sorted((g.num_nodes for g in placement), reverse=True)
    assert any("Conv" in group.operator for group in placement)


def test_run_returns_the_only_output(tiny_bundle: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    session = vision(tiny_bundle)
    size = spec.towers["image"].spec.size
    output = session.run({spec.towers["image"].inputs.pixel_values: np.zeros((3, 3, size, size), np.float32)})
    assert output.shape == (3, spec.embed_dim)
    assert output.dtype == np.float32


def test_a_provider_that_silently_falls_back_is_an_error(tiny_bundle: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA: nothing falls back")
    path = tiny_bundle / open_bundle(tiny_bundle).spec.artifact("image").file
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match="'cuda' was asked for and onnxruntime fell back to CPU"),
    ):
        OnnxSession(path, path.name, SessionOptions("cuda", thread_pool(1)))


def test_bytes_are_run_as_a_file_is(tiny_bundle: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    feeds = {spec.towers["image"].inputs.pixel_values: np.ones((1, 3, *spec.towers["image"].spec.shape), np.float32)}
    raw = (tiny_bundle / spec.artifact("image").file).read_bytes()
    np.testing.assert_array_equal(OnnxSession(raw, "bytes", CPU).run(feeds), vision(tiny_bundle).run(feeds))


def test_an_error_inside_a_run_is_named_with_the_shapes(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    name = open_bundle(tiny_bundle).spec.towers["image"].inputs.pixel_values
    with pytest.raises(EngineError, match=rf"failed on {name} \(1, 3, 2\): .*mmalign verify"):
        session.run({name: np.zeros((1, 3, 2), np.float32)})


def test_a_provider_that_fails_during_a_run_is_not_replaced(tiny_bundle: Path) -> None:
    assert vision(tiny_bundle)._session.get()._enable_fallback == 0  # type: ignore[union-attr]


def test_after_close_there_is_nothing_to_run(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    session.close()
    with pytest.raises(EmbedderStateError, match="was closed"):
        session.placement()


def test_a_model_that_keeps_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    raw = external_model("weights.bin")
    with pytest.raises(BundleIntegrityError, match="keeps weights in another file"):
        OnnxSession(raw, "model", CPU)
