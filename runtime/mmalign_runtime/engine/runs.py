"""How a session is run: as it is, or in batches of a few sizes, each through a session of its own.

cuDNN plans a convolution for one input shape. onnxruntime keeps the plan of the last shape alone, so a call whose batch
size differs from the call before plans every convolution anew: 7 ms each. A session that only ever sees one size keeps
its plans. Letters: B batch, S image side, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.held import Held
from mmalign_runtime.engine.host_memory import HostMemory
from mmalign_runtime.engine.session import Feeds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH_SIZES = (1, 8, 32)


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
        output: NDArray[np.float32]
        (output,) = session.run([session.get_outputs()[0].name], dict(feeds))
        return output

    def close(self) -> None:
        """Nothing is kept."""


class SizedRuns:
    """Runs batches of one input (B, ...), only B varying, at fixed sizes, each in its own session.

    Larger batches than the largest size are cut, others are filled up with zeros, whose vectors are dropped.
    """

    def __init__(
        self,
        first: InferenceSession,
        create: Callable[[], InferenceSession],
        name: str,
        memory: HostMemory,
        sizes: tuple[int, ...] = BATCH_SIZES,
    ) -> None:
        """Make a session for every size, `first` for the largest, and run each once, so that it is planned.

        `name` stands for the model in messages, `memory` gives the arrays in which batches are filled up.
        """
        *smaller, largest = sorted(sizes)
        self._name, self._shape = row_of(first)
        self._sessions: Mapping[int, Held[InferenceSession]] = {
            **{size: Held(create(), name) for size in smaller},
            largest: Held(first, name),
        }
        self._rows = {size: memory.empty((size, *self._shape)) for size in self._sessions}
        self._locks = {size: Lock() for size in self._sessions}
        for size, rows in self._rows.items():
            rows[...] = 0
            self._run_at(self._sessions[size].get(), rows)

    def run(self, session: InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        """Return (B, D) for the input. Raises EmbedderStateError after `close`."""
        rows = feeds[self._name]
        if rows.shape[1:] != self._shape or rows.dtype != np.float32 or not len(rows):
            return PlainRuns().run(session, feeds)  # onnxruntime says what is wrong with it
        sessions = {size: held.get() for size, held in self._sessions.items()}  # kept to the end of this run
        largest = max(sessions)
        parts = [self._run_filled_up(sessions, rows[at : at + largest]) for at in range(0, len(rows), largest)]
        return np.concatenate(parts)  # (B, D)

    def close(self) -> None:
        """Let go of the sessions; a run that is going on keeps its own to the end."""
        for held in self._sessions.values():
            held.close()

    def _run_filled_up(
        self, sessions: Mapping[int, InferenceSession], rows: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        size = min(size for size in sessions if size >= len(rows))
        if len(rows) == size:
            return self._run_at(sessions[size], rows)
        with self._locks[size]:
            filled = self._rows[size]
            filled[: len(rows)], filled[len(rows) :] = rows, 0
            return self._run_at(sessions[size], filled)[: len(rows)]

    def _run_at(self, session: InferenceSession, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        return PlainRuns().run(session, {self._name: rows})


def row_of(session: InferenceSession) -> tuple[str, tuple[int, ...]]:
    """Return the name of a session's only input, and its shape without the batch."""
    (only,) = session.get_inputs()
    return only.name, tuple(only.shape[1:])


def varies_in_its_batch_alone(session: InferenceSession) -> bool:
    """Return whether there is one input, float32, whose shape is known but for the batch."""
    first, *others = session.get_inputs()
    batch, *row = first.shape
    is_open = not isinstance(batch, int)
    return not others and first.type == "tensor(float)" and is_open and all(isinstance(side, int) for side in row)
