"""Execution providers by the names people use: what is asked for and absent is an error with its fix.

Their options are set here, on purpose and visibly: `Embedder.info()` shows them.
"""

from __future__ import annotations

import io
import logging
import os
from contextlib import redirect_stdout
from functools import cache
from types import ModuleType
from typing import get_args

import msgspec

from mmalign_runtime.config import Provider as Provider  # of the words that an engine is asked with
from mmalign_runtime.config import ResolvedProvider as ResolvedProvider
from mmalign_runtime.errors import MissingDependencyError, ProviderError

logger = logging.getLogger(__name__)


class ProviderChoice(msgspec.Struct, frozen=True):
    """One of onnxruntime's providers, by its own name, with the options it is given."""

    name: str
    options: dict[str, str]


_ORT_NAMES: dict[ResolvedProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_GPU_INSTALL = "pip uninstall onnxruntime && pip install 'mmalign-runtime[gpu]'"
_INSTALL: dict[ResolvedProvider, str] = {
    "cpu": "pip install 'mmalign-runtime[cpu]'",
    "cuda": _GPU_INSTALL,
    "tensorrt": f"{_GPU_INSTALL} tensorrt",
    "openvino": "pip uninstall onnxruntime && pip install onnxruntime-openvino",
}
_CUDA_OPTIONS = {
    # Batches and text lengths change from call to call. An exhaustive search would run anew for every new shape; and
    # an arena that doubles would hold memory that no shape needs.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
_CPU = ProviderChoice(_ORT_NAMES["cpu"], {})


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Raises MissingDependencyError naming both installs when neither is there."""
    # onnxruntime 1.32 writes a device id into the user's cache and sends events, unless told not to before its import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is not installed. Run `pip install 'mmalign-runtime[cpu]'`, or, where there is an NVIDIA GPU, "
            "`pip install 'mmalign-runtime[gpu]'` (one of the two: they share one import name)."
        ) from error
    module: ModuleType = onnxruntime
    return module


def resolve_provider(asked: Provider) -> ResolvedProvider:
    """Return the provider to use for `asked`; "auto" takes CUDA where this onnxruntime was built with it, else the CPU.

    Raises ProviderError when `asked` is unknown, or this onnxruntime was built without it.
    """
    if asked not in get_args(Provider):
        raise ProviderError(f"provider {asked!r} is not known; choose one of {', '.join(get_args(Provider))}.")
    available = import_onnxruntime().get_available_providers()
    if asked == "auto":
        chosen: ResolvedProvider = "cuda" if _ORT_NAMES["cuda"] in available else "cpu"
    elif _ORT_NAMES[asked] not in available:
        raise ProviderError(
            f"provider {asked!r} was asked for, and this onnxruntime offers only {', '.join(available)}. "
            f"Run `{_INSTALL[asked]}`, or ask for provider 'cpu'."
        )
    else:
        chosen = asked
    if chosen in ("cuda", "tensorrt"):
        _load_cuda()
    return chosen


@cache
def _load_cuda() -> None:
    """Load CUDA and cuDNN from the nvidia packages of this environment, where they are: the system's linker does not
    know that place. What cannot be loaded shows when the session is made.
    """
    onnxruntime = import_onnxruntime()
    with redirect_stdout(io.StringIO()) as said:  # it prints; standard output belongs to the caller
        onnxruntime.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.info("onnxruntime: %s", line)


def provider_choices(
    provider: ResolvedProvider, num_threads: int, *, allow_tf32: bool = False
) -> tuple[ProviderChoice, ...]:
    """Return onnxruntime's providers for one provider, in the order in which they are offered each node.

    The CPU stands behind the others for the few nodes they do not take; `Embedder.info()` counts them.
    """
    cuda = ProviderChoice(_ORT_NAMES["cuda"], {"use_tf32": str(int(allow_tf32)), **_CUDA_OPTIONS})
    if provider == "cuda":
        return (cuda, _CPU)
    if provider == "tensorrt":
        return (ProviderChoice(_ORT_NAMES["tensorrt"], {"trt_fp16_enable": "0", "trt_bf16_enable": "0"}), cuda, _CPU)
    if provider == "openvino":
        # Left to itself, OpenVINO computes in bfloat16 wherever the processor has it.
        config = {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(num_threads)}}
        options = {"device_type": "CPU", "load_config": msgspec.json.encode(config).decode()}
        return (ProviderChoice(_ORT_NAMES["openvino"], options), _CPU)
    return (_CPU,)


def ort_name(provider: ResolvedProvider) -> str:
    """Return onnxruntime's own name of a provider."""
    return _ORT_NAMES[provider]
