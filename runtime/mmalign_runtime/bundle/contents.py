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


class Readable(Protocol):
    """Files that can be copied. Every method that takes a name raises BundleIntegrityError when it cannot be read."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one file's bytes, a piece at a time."""

    def size_bytes(self, name: str) -> int:
        """Return the length of one file."""


class Contents(Readable, Protocol):
    """The files of one bundle."""

    path: Path

    def names(self) -> frozenset[str] | None:
        """Return every name there is, or None where files that no spec lists do no harm."""

    def source(self, name: str) -> FileSource:
        """Return one file as a path or as bytes, whichever is cheaper."""

    def view(self, name: str) -> memoryview:
        """Return one file's bytes, mapped: nothing is read until somebody looks at it."""

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


class FolderContents:
    """The files of a bundle's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> frozenset[str] | None:
        """Return None: a stray file beside the bundle's own decides nothing, and is not looked at."""
        return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one file's bytes, a piece at a time."""
        path = self._path_of(name)
        try:
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise BundleIntegrityError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error

    def source(self, name: str) -> FileSource:
        """Return the path of one file, or its bytes where the path is not UTF-8, as engines ask of one.

        Raises BundleIntegrityError when it leaves the folder, is a link, or missing.
        """
        path = self._path_of(name)
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return b"".join(self.chunks(name))
        return path

    def _path_of(self, name: str) -> Path:
        check_name(self.path, name)
        path = self.path / name
        try:
            # The file, or a folder above it inside the bundle, is a link.
            is_link = path.resolve() != self.path.resolve() / name
            is_file = path.is_file()
        except OSError as error:  # a name that the file system does not take
            raise BundleIntegrityError(
                f"{path} cannot be a file: {error.strerror}. Export the bundle again."
            ) from error
        if is_link:
            raise BundleIntegrityError(
                f"{path} is a link; a bundle holds its files itself. Copy the file in its place."
            )
        if not is_file:
            raise BundleIntegrityError(f"{path} is missing. Copy the whole bundle again, or export it again.")
        return path

    def view(self, name: str) -> memoryview:
        """Return one file's bytes, mapped."""
        path = self._path_of(name)
        try:
            return mapped(path)
        except OSError as error:
            raise BundleIntegrityError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error

    def size_bytes(self, name: str) -> int:
        """Return the length of one file."""
        return self._path_of(name).stat().st_size

    def stamp(self, name: str) -> Stamp:
        """Return the file's device, inode, size, and the times of its last writing and last change of any kind."""
        return stamp_of(self._path_of(name))


def stamp_of(path: Path) -> Stamp:
    """Return a file's device, inode, size, mtime and ctime; the ctime cannot be set back, as mtime can."""
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
