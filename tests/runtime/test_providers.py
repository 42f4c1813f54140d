import sys

import onnxruntime
import pytest

from mmalign_runtime.errors import MissingDependencyError, ProviderError
from mmalign_runtime.providers import import_onnxruntime, ort_name, provider_options, resolve_provider

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_auto_takes_cuda_where_it_is_offered_and_the_cpu_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CUDA, CPU)
    assert resolve_provider("auto") == "cuda"
    offer(monkeypatch, CPU)
    assert resolve_provider("auto") == "cpu"


def test_a_provider_that_is_not_there_is_an_error_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CPU)
    with pytest.raises(ProviderError, match=r"offers only CPU.*pip uninstall onnxruntime && pip install 'mmalign-run"):
        resolve_provider("cuda")


def test_an_unknown_provider_names_the_known_ones() -> None:
    with pytest.raises(ProviderError, match="'tpu' is not known; choose one of auto, cpu, cuda"):
        resolve_provider("tpu")  # type: ignore[arg-type]


def test_without_onnxruntime_both_installs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"mmalign-runtime\[cpu\].*mmalign-runtime\[gpu\]"):
        import_onnxruntime()


def test_cuda_runs_without_tf32_and_with_the_cpu_behind_it() -> None:
    assert provider_options("cuda") == [(CUDA, {"use_tf32": "0"}), (CPU, {})]
    assert provider_options("cpu") == [(CPU, {})]
    assert ort_name("cuda") == CUDA
