"""A folder that is whole or not there: written beside its place, then put there in one step.

A process that is killed leaves the folder it was writing, locked no more; the next one for the same place removes it.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STAGED = ".staged"

# linux/fcntl.h and linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 1 << 1
# What an older kernel, a file system without the flag (NFS) and a sandbox answer.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, for `put`. It is gone at the end of the block, however that ends.

    What a killed process left of an earlier one is removed first. Raises OSError where nothing can be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(out)
    stage = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=_STAGED))
    try:
        stage.chmod(0o755)
        with _locked(stage):
            yield stage
    finally:
        _remove(stage)


def put(stage: Path, out: Path) -> None:
    """Put a staged folder in place of what is there.

    An old folder is swapped for the new one, so that one of the two is at `out` at every moment. Where the system
    cannot swap, the old one is moved aside first: a kill between the two renames leaves it whole, but beside `out`.
    """
    if not out.exists():
        stage.rename(out)
        return
    if exchange(stage, out):
        return  # the old folder lies at `stage` now, and is removed with it
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(aside / out.name)
    try:
        stage.rename(out)
    except OSError:
        (aside / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(aside)


def _remove_leftovers(out: Path) -> None:
    """Remove what killed processes were writing for `out`; what is locked is being written now."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*{_STAGED}"):
        with _locked(path) as is_ours:
            if is_ours:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():  # what was at `out` need not have been a folder
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while the block runs, and say whether that was possible. A killed process holds no lock."""
    if os.name == "nt":  # folders cannot be locked there, so nothing is known to be left over
        yield False
        return
    from filelock import lock_descriptor  # whoever embeds and writes nothing needs no asyncio

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_ours = lock_descriptor(descriptor, blocking=False)
    except OSError:  # the file system has no locks: nothing is known to be left over
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(descriptor)


def exchange(left: Path, right: Path) -> bool:
    """Swap what lies at two paths of one file system, and return whether that was possible here; if not, nothing moved.

    By renameat2(2) of Linux: rename(2), which is all that Python offers, puts no folder in the place of a filled one.
    Raises OSError when a path is missing or not writable.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # glibc before 2.28
        return False
    paths = (_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right))
    if libc.renameat2(*paths, ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(left), None, str(right))
