"""One writer a folder: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmalign_runtime.errors import InputError

LOCK_NAME = ".lock"

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder. Raises InputError when another process holds it.

    The lock is a file in the folder, since a lock on the folder itself does not work over NFS; it is removed at the
    end. Where the system or the file system knows no locks, a warning is logged and nothing is held.
    """
    path = folder / LOCK_NAME
    with path.open("a") as file:
        if not _lock(file.fileno()):
            raise InputError(f"{folder} is being written by another process. Wait for it, or choose another.")
        # Whoever held the lock a moment ago may have removed the file that we opened.
        if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise InputError(f"{folder} was being written by another process until now. Run the command again.")
        try:
            yield
        finally:
            with contextlib.suppress(PermissionError):  # Windows keeps a file that is open
                path.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    from filelock import lock_descriptor  # whoever embeds and writes nothing needs no asyncio

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning("no file locks there (%s): see to it that no other process writes there", error.strerror)
        return True
