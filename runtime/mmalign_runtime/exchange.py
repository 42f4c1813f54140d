"""Two paths swapped in one step, where the system can do it: renameat2(2) with RENAME_EXCHANGE, of Linux.

rename(2), which is all that Python offers, cannot put a folder in the place of one that is not empty.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

# linux/fcntl.h and linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 1 << 1
# What an older kernel, a file system without the flag (NFS) and a sandbox answer.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def exchange(left: Path, right: Path) -> bool:
    """Swap what lies at two paths of one file system, and return whether that was possible here; if not, nothing moved.

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
