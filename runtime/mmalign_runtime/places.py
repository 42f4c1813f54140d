"""Whether a file or folder can be written at a place, found out before any work is done."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mmalign_runtime.addresses import foreign
from mmalign_runtime.errors import InputError


def check_place(path: Path) -> None:
    """Find out whether something can be written at `path`. Folders above it that are missing will be made, not here.

    Raises InputError where `path` is a URL, a file stands where a folder is needed, or the folder takes no file.
    """
    if foreign(path):
        raise InputError(f"{path} is not a path on this machine. Write to one, and copy the result from there.")
    try:
        folder = next(above for above in path.absolute().parents if above.exists() or above.is_symlink())
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so {path.name} cannot be written to it. Choose another place.")
        with tempfile.TemporaryFile(dir=folder):  # asked of the system: permissions do not tell of a read-only disk
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
