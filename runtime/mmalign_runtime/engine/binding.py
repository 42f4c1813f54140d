"""How a session is run: plainly, or through tensors that stay on the device, as CUDA graphs need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.providers import ResolvedProvider, import_onnxruntime
from mmalign_runtime.engine.session import Feeds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue, RunOptions


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
            value.update_inplace(feeds[name])
        self._binding.synchronize_inputs()  # the run has a stream of its own, which does not wait for the copies
        self._session.run_with_iobinding(self._binding, self._run_options)
        return np.array(self._output.numpy())  # on the CPU a view of what the next run overwrites


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
