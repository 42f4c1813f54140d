"""The sha256 of a bundle's files, remembered on this machine so that a bundle that nobody touched is not hashed again.

A remembered hash counts only while the file's stamp (device, inode, size, mtime, ctime) is the same. What is remembered
lies in the user's cache, never in a bundle; where there is no cache to write to, every load hashes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

import msgspec

from mmalign_runtime.atomic import replacing
from mmalign_runtime.bundle.contents import Contents, Stamp
from mmalign_runtime.strict_json import JsonError, read_json

logger = logging.getLogger(__name__)

# A file written twice within one tick of the file system's clock keeps its stamp. Ticks are milliseconds on Linux, and
# up to two seconds elsewhere (FAT), so a stamp is trusted from then on.
_SETTLED_NS = 2_000_000_000


class Remembered(msgspec.Struct, frozen=True):
    """One file's hash, and the stamp that it had then."""

    stamp: Stamp
    sha256: str


class HashMemory:
    """The remembered hashes of one bundle."""

    def __init__(self, path: Path) -> None:
        """Read what is remembered of the bundle at `path`; a memory that cannot be read is an empty one."""
        name = f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
        folder = cache_dir()
        self._file = None if folder is None else folder / "hashes" / name
        self._known = {} if self._file is None else _read(self._file)
        self._is_changed = False

    def sha256(self, contents: Contents, name: str) -> str:
        """Return the sha256 of one file, hashing it only when its stamp is not the remembered one."""
        stamp = contents.stamp(name)
        known = self._known.get(name)
        if known is not None and known.stamp == stamp:
            return known.sha256
        found = sha256_of(contents, name)
        # Not what was written a moment ago, and not what was written while it was hashed.
        if contents.stamp(name) == stamp and time.time_ns() - max(stamp[3:5]) > _SETTLED_NS:
            self._known[name] = Remembered(stamp, found)
            self._is_changed = True
        return found

    def save(self) -> None:
        """Write down what was learned, where there is a place to write to."""
        if not self._is_changed or self._file is None:
            return
        try:
            with replacing(self._file) as temporary:
                temporary.write_bytes(msgspec.json.encode(self._known))
        except OSError as error:
            logger.debug("hashes are not remembered: %s", error)


def sha256_of(contents: Contents, name: str) -> str:
    """Return the sha256 of one file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in contents.chunks(name):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path | None:
    """Return this user's cache for mmalign, $XDG_CACHE_HOME/mmalign or ~/.cache/mmalign; None where there is none.

    On Windows a file's ctime is its birth, so nothing there tells a file whose mtime was put back: no cache.
    """
    if os.name == "nt":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = base if base.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:  # no HOME, and no entry in the user database: containers that run as any uid
        return None
    return home / "mmalign"


def _read(path: Path) -> dict[str, Remembered]:
    try:
        return read_json(path.read_bytes(), dict[str, Remembered])
    except (OSError, JsonError):
        return {}
