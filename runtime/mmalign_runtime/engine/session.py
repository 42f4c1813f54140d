"""One ONNX graph, ready to run: the only place that creates onnxruntime sessions."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, cast
from weakref import WeakSet

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle.contents import FileSource
from mmalign_runtime.engine.external_data import has_external_data
from mmalign_runtime.engine.pool import Pool
from mmalign_runtime.engine.providers import (
    ProviderChoice,
    ResolvedProvider,
    import_onnxruntime,
    ort_name,
    provider_choices,
)
from mmalign_runtime.errors import BundleError, BundleIntegrityError, EmbedderStateError, EngineError, ProviderError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]

_ERRORS_ONLY = 3


class SessionOptions(msgspec.Struct, frozen=True):
    """How a graph is run.

    `reuse_memory_plan` suits inputs whose shape stays the same from call to call; for others onnxruntime would keep a
    plan for every shape it ever saw. `takes_turns` sends runs through the pool's door.
    `allow_spinning` lets threads wait busily for the next run: quick on a machine of one's own, and cores lost to
    whoever runs in between, the other tower, decoding, other containers. `allow_tf32` lets CUDA keep 10 of 23 bits of
    mantissa: quicker, and other vectors than every other machine's.
    """

    provider: ResolvedProvider
    pool: Pool
    allow_spinning: bool = False
    allow_tf32: bool = False
    reuse_memory_plan: bool = True
    takes_turns: bool = True

    def choices(self) -> tuple[ProviderChoice, ...]:
        """Return the providers that these options offer a graph to, in order."""
        return provider_choices(self.provider, self.pool.num_threads, allow_tf32=self.allow_tf32)


class NodeGroup(msgspec.Struct, frozen=True):
    """How many nodes of one operator one execution provider took."""

    provider: str
    operator: str
    num_nodes: int


class OnnxSession:
    """An onnxruntime session over one graph. `run` is safe to call from many threads at once."""

    def __init__(self, source: FileSource, name: str, options: SessionOptions) -> None:
        """Load the graph from a path or from bytes; `name` stands for it in messages.

        Raises ProviderError when the provider did not take the graph, BundleError when the file is no ONNX model,
        BundleIntegrityError when it keeps weights elsewhere.
        """
        _check_closed(source, name)
        self.name = name
        self.options = options
        self._process_id = os.getpid()
        _live.add(self)
        self._session: InferenceSession | None = _create(source, name, options)
        self._output_names = [output.name for output in self._session.get_outputs()]
        first = self._session.get_providers()[0]
        if first != ort_name(options.provider):
            raise ProviderError(
                f"provider {options.provider!r} was asked for and onnxruntime fell back to {first} for {name}: "
                "its libraries did not load. Check that they fit this onnxruntime, or ask for 'cpu'."
            )
        # Runs on a device queue there; only on the CPU do they compete for the caller's own cores.
        takes_turns = options.takes_turns and options.provider == "cpu"
        self._turn = options.pool.turnstile.turn if takes_turns else nullcontext

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the graph and return its only output, float32.

        Raises EngineError when onnxruntime gives up, EmbedderStateError after `close` and in a forked child.
        """
        session = self._usable()
        try:
            with self._turn():
                outputs = session.run(self._output_names, dict(feeds))
        except _engine_errors(import_onnxruntime()) as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            reason = f"{self.name} failed on {shapes}: {error} Use a smaller batch_size, or free some memory."
            raise EngineError(reason) from error
        return cast("NDArray[np.float32]", outputs[0])

    def placement(self) -> tuple[NodeGroup, ...]:
        """Return which execution provider took how many nodes of which operator, most first."""
        counts: dict[tuple[str, str], int] = {}
        for subgraph in self._usable().get_provider_graph_assignment_info():
            for node in subgraph.get_nodes():
                key = (subgraph.ep_name, node.op_type)
                counts[key] = counts.get(key, 0) + 1
        groups = (NodeGroup(provider, operator, count) for (provider, operator), count in counts.items())
        return tuple(sorted(groups, key=lambda group: -group.num_nodes))

    def close(self) -> None:
        """Let go of the graph and its memory. A run that is going on ends first."""
        self._session = None

    def _usable(self) -> InferenceSession:
        if self._process_id != os.getpid():
            raise EmbedderStateError(
                f"{self.name} was loaded by process {self._process_id}, and this is a fork of it, without its threads. "
                "Load the Embedder after the fork, or start workers with multiprocessing's 'spawn'."
            )
        if self._session is None:
            raise EmbedderStateError(f"{self.name} was closed. Load the Embedder again.")
        return self._session


_live: WeakSet[OnnxSession] = WeakSet()


def _keep_sessions_of_the_parent() -> None:
    """Let no session of the parent be destroyed in a forked child.

    onnxruntime waits for a session's threads when it is destroyed, and they are not there: a child that merely collects
    garbage, or ends, would hang. A reference that nobody gives back costs it nothing but pages shared with its parent.
    """
    for session in list(_live):
        if session._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions_of_the_parent)


def _check_closed(source: FileSource, name: str) -> None:
    try:
        is_open = has_external_data(_view(source))
    except ValueError as error:
        raise BundleError(f"{name} is no ONNX model ({error}). Export the bundle again.") from error
    if is_open:
        raise BundleIntegrityError(
            f"{name} keeps weights in another file; a bundle's models are whole. Export it again."
        )


def _view(source: FileSource) -> memoryview:
    if isinstance(source, bytes):
        return memoryview(source)
    with source.open("rb") as file:  # the mapping outlives the file, and goes when nobody looks at it any more
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _create(source: FileSource, name: str, options: SessionOptions) -> InferenceSession:
    ort = import_onnxruntime()
    providers = [(choice.name, choice.options) for choice in options.choices()]
    model = str(source) if isinstance(source, Path) else source
    try:
        # Without enable_fallback=0, an error of CUDA during a run would make onnxruntime go on on the CPU.
        session = ort.InferenceSession(model, _ort_options(ort, options), providers=providers, enable_fallback=0)
        session._model_bytes = None  # kept for the fallback that is switched off: all weights of an archive once more
        return session
    except _engine_errors(ort) as error:
        raise BundleError(f"{name} cannot be loaded by onnxruntime {ort.__version__}: {error}") from error


def _ort_options(ort: ModuleType, options: SessionOptions) -> object:
    found = ort.SessionOptions()
    found.intra_op_num_threads = options.pool.num_threads
    found.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.allow_spinning)))
    found.enable_mem_pattern = options.reuse_memory_plan
    found.log_severity_level = _ERRORS_ONLY
    # Lets `placement` say which provider took which node.
    found.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return found


def _engine_errors(ort: ModuleType) -> tuple[type[Exception], ...]:
    # onnxruntime's errors share no root but Exception.
    state = ort.capi.onnxruntime_pybind11_state
    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (RuntimeError, MemoryError, ValueError, *(getattr(state, name) for name in (*names, "RuntimeException")))
