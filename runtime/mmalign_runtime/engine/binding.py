"""Runs through tensors that stay on the device: inputs are copied into them, the output is copied back once.

A plain run allocates its inputs and output on the device each time. Here they are kept for shapes that come again.
Letters: B batch, D embedding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.providers import ResolvedProvider, import_onnxruntime
from mmalign_runtime.engine.session import Feeds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue, RunOptions

# Full batches, the last one of a list, and single images, each for two callers, with room to spare.
_MOST_KEPT = 8

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...], str], ...]


class Runs(Protocol):
    """A way to run a session. Safe to call from many threads at once."""

    def run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        """Return the session's only output, in memory that no later run touches."""

    def close(self) -> None:
        """Let go of what is kept between runs, once those that go on have ended."""


class PlainRuns:
    """Leaves inputs and output to onnxruntime."""

    def run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        """Return the session's only output."""
        return run_plain(session, feeds)

    def close(self) -> None:
        """Nothing is kept."""


class Binding:
    """A session's inputs and output at fixed shapes, bound to tensors on its device. For one thread at a time."""

    def __init__(
        self,
        session: InferenceSession,
        device: str,
        feeds: Feeds,
        output: NDArray[np.float32],
        run_options: RunOptions | None = None,
    ) -> None:
        """Take shapes and types of `feeds`, and of the `output` that they gave."""
        self._session = session
        self._run_options = run_options
        self._inputs = {name: _tensor(device, array) for name, array in feeds.items()}
        self._output = _tensor(device, output)
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run on feeds of the binding's own shapes."""
        for name, value in self._inputs.items():
            value.update_inplace(feeds[name])  # returns when the device has it
        self._session.run_with_iobinding(self._binding, self._run_options)
        return np.array(self._output.numpy())  # on the CPU a view of what the next run overwrites


class BoundRuns:
    """Keeps bindings for the shapes that came last; a caller takes one out for its run, so no two share one."""

    def __init__(self, provider: ResolvedProvider) -> None:
        self._device = device_of(provider)
        self._free: OrderedDict[Shapes, list[Binding]] = OrderedDict()
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def num_kept(self) -> int:
        """How many bindings wait for a run."""
        with self._lock:
            return sum(len(bindings) for bindings in self._free.values())

    def run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        """Run through a binding; the first run of a shape is a plain one, which says how large the output is."""
        shapes = _shapes(feeds)
        binding = self._take(shapes)
        if binding is None:
            output = run_plain(session, feeds)
            binding = Binding(session, self._device, feeds, output)
        else:
            output = binding.run(feeds)  # where it fails, the binding is not kept
        self._keep(shapes, binding)
        return output

    def close(self) -> None:
        """Let go of all bindings; those in use go with their run."""
        with self._lock:
            self._is_closed = True
            self._free.clear()

    def _take(self, shapes: Shapes) -> Binding | None:
        with self._lock:
            found = self._free.get(shapes)
            if not found:
                return None
            binding = found.pop()
            if not found:
                del self._free[shapes]
            return binding

    def _keep(self, shapes: Shapes, binding: Binding) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._free.setdefault(shapes, []).append(binding)
            self._free.move_to_end(shapes)
            while sum(len(bindings) for bindings in self._free.values()) > _MOST_KEPT:
                oldest = next(iter(self._free))
                self._free[oldest].pop()
                if not self._free[oldest]:
                    del self._free[oldest]


def device_of(provider: ResolvedProvider) -> str:
    """Return onnxruntime's name of the device that a provider's tensors lie on."""
    return "cuda" if provider == "cuda" else "cpu"


def run_plain(session: InferenceSession, feeds: Feeds, run_options: RunOptions | None = None) -> NDArray[np.float32]:
    """Return the only output of a run that onnxruntime finds memory for itself."""
    output: NDArray[np.float32]
    (output,) = session.run([session.get_outputs()[0].name], dict(feeds), run_options)
    return output


def _tensor(device: str, like: NDArray[np.generic]) -> OrtValue:
    values = import_onnxruntime().OrtValue
    found: OrtValue = values.ortvalue_from_shape_and_type(like.shape, like.dtype.type, device)
    return found


def _shapes(feeds: Feeds) -> Shapes:
    return tuple((name, array.shape, array.dtype.str) for name, array in feeds.items())
