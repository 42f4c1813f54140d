"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = ".tmp"


@contextlib.contextmanager
def replacing(path: Path, *, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary path in the same folder; when the block ends well it becomes `path` in one rename.

    The file and then its folder are flushed, so that a power cut after the block finds the new file too. `folder`, of
    the same file system, holds the temporary file instead. When the block raises, nothing is left behind and `path`
    keeps what it held; a process that is killed leaves the temporary file, which `remove_leftovers` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder or path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make what was renamed or removed in `folder` last through a power cut; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files of `replacing` in `folder`, of files called `name`, which may hold wildcards.

    For a folder that no other process writes to.
    """
    for path in folder.glob(f".{name}.*{_TEMPORARY}"):
        path.unlink()
