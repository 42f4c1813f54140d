import json
import os
import sys
from typing import get_args

import onnxruntime
import pytest

from mmalign_runtime.engine.providers import (
    Provider,
    ProviderChoice,
    ResolvedProvider,
    _load_cuda,
    import_onnxruntime,
    ort_name,
    provider_choices,
    resolve_provider,
)
from mmalign_runtime.errors import MissingDependencyError, ProviderError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_auto_takes_cuda_where_it_is_offered_and_the_cpu_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CUDA, CPU)
    assert resolve_provider("auto") == "cuda"
    offer(monkeypatch, CPU)
    assert resolve_provider("auto") == "cpu"


@pytest.mark.parametrize(("asked", "loads"), [("cuda", 1), ("tensorrt", 1), ("auto", 1), ("cpu", 0), ("openvino", 0)])
def test_the_libraries_of_cuda_are_loaded_once_and_nothing_is_printed(
    asked: Provider,
    loads: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    offer(monkeypatch, "TensorrtExecutionProvider", "OpenVINOExecutionProvider", CUDA, CPU)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("Failed to load libcublas.so.13\n"))
    caplog.set_level("INFO", "mmalign_runtime")
    _load_cuda.cache_clear()
    resolve_provider(asked)
    resolve_provider(asked)
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["onnxruntime: Failed to load libcublas.so.13"] * loads
    _load_cuda.cache_clear()


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


def names(provider: ResolvedProvider) -> list[str]:
    return [choice.name for choice in provider_choices(provider, 2)]


def test_the_cpu_stands_behind_every_other_provider() -> None:
    assert names("cpu") == [CPU]
    assert names("cuda") == [CUDA, CPU]
    assert names("tensorrt") == ["TensorrtExecutionProvider", CUDA, CPU]
    assert names("openvino") == ["OpenVINOExecutionProvider", CPU]
    assert ort_name("cuda") == CUDA


def test_no_provider_takes_a_shorter_mantissa_than_float32() -> None:
    assert provider_choices("cuda", 2)[0].options["use_tf32"] == "0"
    assert provider_choices("cuda", 2, allow_tf32=True)[0].options["use_tf32"] == "1"
    assert provider_choices("tensorrt", 2)[0].options["trt_fp16_enable"] == "0"
    config = json.loads(provider_choices("openvino", 3)[0].options["load_config"])
    assert config["CPU"] == {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3"}


def test_cuda_gets_these_options_and_no_other() -> None:
    plain = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    assert provider_choices("cuda", 2)[0].options == plain
    tensorrt, cuda, _ = provider_choices("tensorrt", 2)
    assert tensorrt.options == {"trt_fp16_enable": "0", "trt_bf16_enable": "0"}
    assert cuda.options == plain


def test_openvino_and_the_cpu_get_these_options_and_no_other() -> None:
    openvino, cpu = provider_choices("openvino", 3)
    assert cpu.options == {}
    assert openvino.options.keys() == {"device_type", "load_config"}
    assert openvino.options["device_type"] == "CPU"


@pytest.mark.parametrize(
    ("provider", "install"),
    [
        ("cuda", r"pip uninstall onnxruntime && pip install 'mmalign-runtime\[gpu\]'`"),
        ("tensorrt", r"pip uninstall onnxruntime && pip install 'mmalign-runtime\[gpu\]' tensorrt`"),
        ("openvino", "pip uninstall onnxruntime && pip install onnxruntime-openvino`"),
        ("cpu", r"pip install 'mmalign-runtime\[cpu\]'`"),
    ],
)
def test_each_provider_that_is_not_there_names_its_own_install(
    monkeypatch: pytest.MonkeyPatch, provider: ResolvedProvider, install: str
) -> None:
    offer(monkeypatch, "AnotherExecutionProvider")
    with pytest.raises(ProviderError, match=rf"offers only AnotherExecutionProvider\. Run `{install}, or ask"):
        resolve_provider(provider)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt", "openvino"])
def test_what_is_there_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, provider: ResolvedProvider) -> None:
    offer(monkeypatch, ort_name(provider))
    assert resolve_provider(provider) == provider


def test_onnxruntime_is_told_to_send_nothing_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert import_onnxruntime() is onnxruntime
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_auto_and_every_provider_can_be_asked_for() -> None:
    assert get_args(Provider) == ("auto", *get_args(ResolvedProvider))
    assert get_args(ResolvedProvider) == ("cpu", "cuda", "tensorrt", "openvino")
    assert [ort_name(provider) for provider in get_args(ResolvedProvider)] == [
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
        "OpenVINOExecutionProvider",
    ]
    assert ProviderChoice.__struct_config__.frozen


def test_what_a_switch_means_is_said_by_name() -> None:
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        provider_choices("cuda", 2, True)  # type: ignore[misc]
