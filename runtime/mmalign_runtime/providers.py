"""Execution providers by the names people use: what is asked for and absent is an error with its fix."""

from __future__ import annotations

from types import ModuleType
from typing import Literal, TypeAlias, get_args

from mmalign_runtime.errors import MissingDependencyError, ProviderError

Provider: TypeAlias = Literal["auto", "cpu", "cuda"]
ResolvedProvider: TypeAlias = Literal["cpu", "cuda"]

_ORT_NAMES: dict[ResolvedProvider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL: dict[ResolvedProvider, str] = {
    "cpu": "pip install 'mmalign-runtime[cpu]'",
    "cuda": "pip uninstall onnxruntime && pip install 'mmalign-runtime[gpu]'",
}


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Raises MissingDependencyError naming both installs when neither is there."""
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
    """Return the provider to use for `asked`; "auto" takes CUDA where this onnxruntime offers it, else the CPU.

    Raises ProviderError when `asked` is unknown, or this onnxruntime was built without it.
    """
    if asked not in get_args(Provider):
        raise ProviderError(f"provider {asked!r} is not known; choose one of {', '.join(get_args(Provider))}.")
    available = import_onnxruntime().get_available_providers()
    if asked == "auto":
        return "cuda" if _ORT_NAMES["cuda"] in available else "cpu"
    if _ORT_NAMES[asked] not in available:
        raise ProviderError(
            f"provider {asked!r} was asked for, and this onnxruntime offers only {', '.join(available)}. "
            f"Run `{_INSTALL[asked]}`, or ask for provider 'cpu'."
        )
    return asked


def provider_options(provider: ResolvedProvider) -> list[tuple[str, dict[str, str]]]:
    """Return onnxruntime's provider list for one provider.

    On CUDA, TF32 is off: it keeps 10 bits of mantissa, and vectors would differ from every other machine's. The CPU
    stands behind CUDA for the few shape nodes it does not take; `Embedder.info()` names them.
    """
    if provider == "cuda":
        return [(_ORT_NAMES["cuda"], {"use_tf32": "0"}), (_ORT_NAMES["cpu"], {})]
    return [(_ORT_NAMES["cpu"], {})]


def ort_name(provider: ResolvedProvider) -> str:
    """Return onnxruntime's own name of a provider."""
    return _ORT_NAMES[provider]
