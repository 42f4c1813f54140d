"""A bundle that is a folder: each file is whole, inside the folder, and no link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmalign_runtime.bundle.contents import CHUNK_BYTES, FileSource, Stamp, check_name, mapped
from mmalign_runtime.errors import BundleIntegrityError


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
