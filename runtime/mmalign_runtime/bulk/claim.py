"""The folder of a bulk embedding, held for one process: what a killed run left half written is removed first."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path

from mmalign_runtime.atomic import remove_leftovers
from mmalign_runtime.bulk.locking import LOCK_NAME, only_writer
from mmalign_runtime.bulk.parts import ERRORS_NAME, PartsFolder, cannot_write, errors_path
from mmalign_runtime.errors import InputError
from mmalign_runtime.saved.manifest import MANIFEST_NAME, PARTS_SUFFIX

_HALF_PARTS = "part*.parquet"


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[PartsFolder]:
    """Hold a folder, made where it is missing, for this process; a folder that ends empty is removed.

    Raises InputError when another process holds it, it cannot be written to, or it holds what no run wrote.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK_NAME).touch()
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with only_writer(folder):
            _check_ours(folder)
            _remove_leftovers(folder)
            yield PartsFolder(folder)
    finally:
        with contextlib.suppress(OSError):  # not empty, or a place that stays: what it holds is whole either way
            folder.rmdir()


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written; a hidden file of the user's own stays."""
    names = [_HALF_PARTS, MANIFEST_NAME]
    if folder.name.endswith(PARTS_SUFFIX):  # the single file is written here before it is put beside the folder
        merged = Path(folder.name.removesuffix(PARTS_SUFFIX))
        names += [glob.escape(merged.name), glob.escape(errors_path(merged).name)]
    for name in names:
        remove_leftovers(folder, name)
    remove_leftovers(folder / ERRORS_NAME, _HALF_PARTS)


def _check_ours(folder: Path) -> None:
    known = {LOCK_NAME, MANIFEST_NAME, ERRORS_NAME}
    others = [path.name for path in folder.iterdir() if path.name not in known and not path.name.startswith(".")]
    if others and not (folder / MANIFEST_NAME).is_file():
        raise InputError(f"{folder} holds {others[0]!r}, which no `mmalign embed` wrote. Choose another --out.")
