"""Something native that belongs to the process that made it: given up by `close`, refused and kept alive in a fork."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from mmalign_runtime.errors import EmbedderStateError

Native = TypeVar("Native")


class Held(Generic[Native]):
    """One native object, until it is closed. `name` stands for it in messages."""

    def __init__(self, native: Native, name: str) -> None:
        self._native: Native | None = native
        self._name = name
        self._process_id = os.getpid()
        _live.add(self)

    @property
    def is_closed(self) -> bool:
        """Whether the object was given up."""
        return self._native is None

    def get(self) -> Native:
        """Return the object. Raises EmbedderStateError after `close` and in a forked child."""
        if self._process_id != os.getpid():
            raise EmbedderStateError(
                f"{self._name} was loaded by process {self._process_id}, and this is a fork of it, without its "
                "threads. Load the Embedder after the fork, or start workers with multiprocessing's 'spawn'."
            )
        if self._native is None:
            raise EmbedderStateError(f"{self._name} was closed. Load the Embedder again.")
        return self._native

    def close(self) -> None:
        """Let go of the object; whoever uses it at the moment keeps it to the end."""
        self._native = None


_live: WeakSet[Held[Any]] = WeakSet()


def _keep_what_the_parent_holds() -> None:
    """Let nothing that the parent holds be destroyed in a forked child.

    onnxruntime waits for a session's threads when it is destroyed, and they are not there: a child that merely collects
    garbage, or ends, would hang. A reference that nobody gives back costs it nothing but pages shared with its parent.
    """
    for held in list(_live):
        if held._native is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held._native))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_what_the_parent_holds)
