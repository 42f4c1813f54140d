"""One ONNX graph, ready to run: the only place that creates onnxruntime sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import BundleError, ProviderError
from mmalign_runtime.providers import ResolvedProvider, import_onnxruntime, ort_name, provider_options

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]

_ERRORS_ONLY = 3
_SESSION_CONFIG = {
    # Lets `placement` say which provider took which node.
    "session.record_ep_graph_assignment_info": "1",
}


class SessionOptions(msgspec.Struct, frozen=True):
    """How a graph is run.

    `reuse_memory_plan` suits inputs whose shape stays the same from call to call. `allow_spinning` lets the session's
    threads wait busily for its next run: quick when runs follow each other, and a core lost to whoever runs in between.
    """

    provider: ResolvedProvider
    num_threads: int
    reuse_memory_plan: bool = True
    allow_spinning: bool = True


class OnnxSession:
    """An onnxruntime session over one file. `run` is safe to call from many threads at once."""

    def __init__(self, path: Path, options: SessionOptions) -> None:
        """Load the graph.

        Raises ProviderError when the provider did not take the graph, BundleError when the file is no ONNX model.
        """
        self.path = path
        self.options = options
        self._session = _create(path, options)
        self._output_names = [output.name for output in self._session.get_outputs()]
        first = self._session.get_providers()[0]
        if first != ort_name(options.provider):
            raise ProviderError(
                f"provider {options.provider!r} was asked for and onnxruntime fell back to {first} for {path.name}: "
                "its libraries did not load. Check that CUDA and cuDNN fit this onnxruntime-gpu, or ask for 'cpu'."
            )

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the graph and return its only output, float32."""
        outputs = self._session.run(self._output_names, dict(feeds))
        return cast("NDArray[np.float32]", outputs[0])

    def placement(self) -> dict[str, int]:
        """Return how many nodes each execution provider took."""
        counts: Counter[str] = Counter()
        for subgraph in self._session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
        return dict(counts)


def _create(path: Path, options: SessionOptions) -> InferenceSession:
    ort = import_onnxruntime()
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.num_threads
    session_options.enable_mem_pattern = options.reuse_memory_plan
    session_options.log_severity_level = _ERRORS_ONLY
    session_options.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.allow_spinning)))
    for key, value in _SESSION_CONFIG.items():
        session_options.add_session_config_entry(key, value)
    providers = provider_options(options.provider)
    try:
        return ort.InferenceSession(str(path), session_options, providers=providers)
    except _load_errors(ort) as error:
        raise BundleError(f"{path} cannot be loaded by onnxruntime {ort.__version__}: {error}") from error


def _load_errors(ort: ModuleType) -> tuple[type[Exception], ...]:
    # onnxruntime's errors share no root but Exception.
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (RuntimeError, ValueError, *(getattr(state, name) for name in (*names, "RuntimeException")))
