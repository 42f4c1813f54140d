"""CUDA graphs: a tower's launches recorded once for a few batch sizes, and played back as one.

onnxruntime keeps a recorded graph with the thread that recorded it, and the graph reads and writes the memory it was
recorded with. So a session has one thread of its own that records and plays back all its graphs, and every size has
tensors of its own. Batches in between are filled up: the rows that were added are dropped from the result.
Letters: B batch, S image side, D embedding.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.binding import Binding, device_of, run_plain
from mmalign_runtime.engine.host_memory import HostMemory
from mmalign_runtime.engine.providers import ResolvedProvider, import_onnxruntime
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.errors import EmbedderStateError, EngineError, ProviderError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

GRAPH_BATCHES = (1, 8, 32)

_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
# onnxruntime records after two plain runs of a graph id, within the first call since 1.26, in the third one before.
_NUM_RECORDING = 4
# A graph that was recorded badly gives other vectors altogether. float16 keeps three digits, whatever the batch.
_MOST_APART = 5e-3
_THREAD_NAME = "mmalign-graphs"

# Before 1.29 a recording fails when another thread allocates on the device meanwhile.
_one_recording = threading.Lock()


class _Graph(msgspec.Struct, frozen=True):
    """One recorded size: its binding, and the rows (B, 3, S, S) in which smaller batches are filled up."""

    binding: Binding
    rows: NDArray[np.float32]


class GraphRuns:
    """Runs a session of one input (B, ...), only B varying, in batches of fixed sizes, each through its own graph.

    Larger batches than the largest size are cut. Callers wait for each other: there is one device.
    """

    def __init__(
        self,
        session: InferenceSession,
        name: str,
        provider: ResolvedProvider,
        sizes: tuple[int, ...] = GRAPH_BATCHES,
    ) -> None:
        """Record a graph for every size, and hold each to a plain run of one row; `name` stands for the model.

        Raises ProviderError when more than the batch varies, EngineError when a graph gives other vectors.
        """
        self._name = name
        self._input_name, self._row_shape = _rows_of(session, name)
        self._sizes = tuple(sorted(sizes))
        self._thread = ThreadPoolExecutor(1, _THREAD_NAME)
        try:
            with _one_recording:
                self._graphs = self._thread.submit(self._record, session, provider).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        """Return (B, D) for the session's input. Raises EmbedderStateError after `close`."""
        try:
            future = self._thread.submit(self._run, session, feeds)
        except RuntimeError as error:
            raise EmbedderStateError(f"{self._name} was closed. Load the Embedder again.") from error
        return future.result()

    def close(self) -> None:
        """Let go of the graphs and their memory. A run that is going on ends first."""
        self._thread.shutdown()
        self._graphs = {}

    def _run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        rows = feeds[self._input_name]
        if rows.shape[1:] != self._row_shape or rows.dtype != np.float32:
            return run_plain(session, feeds, _graph_options(_NO_GRAPH))  # onnxruntime says what is wrong with it
        largest = self._sizes[-1]
        parts = [self._run_filled_up(rows[start : start + largest]) for start in range(0, len(rows), largest)]
        return np.concatenate(parts)  # (B, D)

    def _run_filled_up(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        size = next(size for size in self._sizes if size >= len(rows))
        graph = self._graphs[size]
        if len(rows) < size:
            graph.rows[: len(rows)] = rows  # below them lie rows of an earlier batch, which move nothing
            return graph.binding.run({self._input_name: graph.rows})[: len(rows)]
        return graph.binding.run({self._input_name: rows})

    def _record(self, session: InferenceSession, provider: ResolvedProvider) -> dict[int, _Graph]:
        memory, device = HostMemory(provider), device_of(provider)
        alone = self._plain(session, self._random(1, seed=1))
        graphs: dict[int, _Graph] = {}
        for size in reversed(self._sizes):  # the largest first: the others fit into its memory
            rows = memory.empty((size, *self._row_shape))
            rows[...] = self._random(size, seed=0)
            output = self._plain(session, rows)
            binding = Binding(session, device, {self._input_name: rows}, output, _graph_options(str(size)))
            for _ in range(_NUM_RECORDING):
                binding.run({self._input_name: rows})
            graphs[size] = _Graph(binding, rows)
            rows[:1] = self._random(1, seed=1)
            self._hold(size, binding.run({self._input_name: rows})[:1], alone)
        return graphs

    def _hold(self, size: int, recorded: NDArray[np.float32], alone: NDArray[np.float32]) -> None:
        apart = float(np.abs(recorded - alone).max())
        if not apart <= _MOST_APART:  # also where it is no number
            raise EngineError(
                f"{self._name}: the graph for batches of {size} gives vectors that are {apart:.2g} from those of a "
                f"plain run, expected at most {_MOST_APART:g}. Leave out cuda_graphs."
            )

    def _plain(self, session: InferenceSession, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return run_plain(session, {self._input_name: rows}, _graph_options(_NO_GRAPH))

    def _random(self, num_rows: int, seed: int) -> NDArray[np.float32]:
        return np.random.default_rng(seed).standard_normal((num_rows, *self._row_shape), np.float32)


def _rows_of(session: InferenceSession, name: str) -> tuple[str, tuple[int, ...]]:
    """Return the only input, and its shape without the batch."""
    first, *others = session.get_inputs()
    shape = first.shape[1:]
    if others or not all(isinstance(side, int) for side in shape):
        seen = ", ".join(f"{each.name} {each.shape}" for each in (first, *others))
        raise ProviderError(f"{name} takes {seen}: graphs need one input that varies in its batch alone.")
    return first.name, tuple(shape)


def _graph_options(graph_id: str) -> RunOptions:
    options: RunOptions = import_onnxruntime().RunOptions()
    options.add_run_config_entry(_GRAPH_ID, graph_id)
    return options
