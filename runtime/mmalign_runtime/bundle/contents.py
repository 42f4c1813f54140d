"""What a bundle's files are read through, whether they lie in a folder or in one archive; and which names are safe."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeAlias

from mmalign_runtime.errors import BundleIntegrityError

# A file in a folder is its path, a file in an archive its bytes: what onnxruntime and Pillow both take.
FileSource: TypeAlias = Path | bytes
# What changes whenever a file is written, renamed over or copied: device, inode, size, and both times in nanoseconds.
Stamp: TypeAlias = tuple[int, ...]

# Large enough that hashing, not reading, takes the time; small enough to stay in a processor's cache.
CHUNK_BYTES = 1 << 20

_UNSAFE = re.compile(r"[\\\x00-\x1f:]")  # Windows separators and drives, control characters


class Contents(Protocol):
    """The files of one bundle. Every method that takes a name raises BundleIntegrityError when it cannot be read."""

    path: Path

    def names(self) -> frozenset[str] | None:
        """Return every name there is, or None where files that no spec lists do no harm."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one file's bytes, a piece at a time."""

    def source(self, name: str) -> FileSource:
        """Return one file as a path or as bytes, whichever is cheaper."""

    def view(self, name: str) -> memoryview:
        """Return one file's bytes, mapped: nothing is read until somebody looks at it."""

    def size_bytes(self, name: str) -> int:
        """Return the length of one file."""

    def stamp(self, name: str) -> Stamp:
        """Return what the file system says of the file; equal stamps mean that nobody wrote to it in between."""


def mapped(path: Path) -> memoryview:
    """Return a file's bytes, read-only; the mapping goes when nobody looks at it any more. Raises OSError."""
    with path.open("rb") as file:
        is_empty = not file.seek(0, 2)  # which cannot be mapped
        return memoryview(b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def check_name(path: Path, name: str) -> None:
    """Raise BundleIntegrityError unless `name` is a plain path inside the bundle at `path`."""
    parts = PurePosixPath(name)
    is_plain = bool(name) and parts.as_posix() == name and not parts.is_absolute() and ".." not in parts.parts
    if not is_plain or _UNSAFE.search(name):
        raise BundleIntegrityError(f"{path}: the listed file {name!r} leaves the bundle. Do not use this bundle.")
