"""What cannot be written into a run's folder is a named error: a full disk above all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mmalign.errors import CheckpointError


@contextlib.contextmanager
def named_writes(path: Path, fix: str = "Check --out, its permissions and the room on its disk.") -> Iterator[None]:
    """Raise CheckpointError for an OSError of the block; `path` is named where the system names no file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be written: {error.strerror or error}. {fix}"
        ) from error
