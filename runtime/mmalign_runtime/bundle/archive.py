"""A bundle that is one file: a .mmalign archive, which is a zip whose entries are stored as they are.

Stored, not compressed: weights do not shrink, an entry is read where it lies, and nothing small can unfold into
something large. An archive holds what bundle.json lists and nothing else. What lies between the files (headers,
directory) has a sha256 of its own, kept as the archive's comment, so that no bit of it can change unseen.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmalign_runtime.bundle.contents import CHUNK_BYTES, Readable, Stamp, check_name, mapped, stamp_of
from mmalign_runtime.errors import BundleIntegrityError
from mmalign_runtime.spec import SPEC_NAME

ARCHIVE_SUFFIX = ".mmalign"

_ENCRYPTED = 0x1
_UNIX_MODE_SHIFT = 16  # the upper half of external_attr
_PLAIN_FILE = stat.S_IFREG | 0o644
_MAX_FRAME_BYTES = 1 << 20  # between two files lies a header, behind the last the directory
_FRAME_DIGITS = 64  # a sha256 in hexadecimal, the last bytes of the file
_LOCAL_SIGNATURE = b"PK\x03\x04"
# The fixed part of a zip's local file header; the lengths of name and extra field are its last two numbers.
_LOCAL_HEADER = struct.Struct("<26xHH")
# What the zipfile module raises on damaged archives, found by fuzzing.
_DAMAGED = (
    zipfile.BadZipFile,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class ArchiveContents:
    """The files of a .mmalign archive. Safe to read from many threads: every read opens the archive for itself."""

    def __init__(self, path: Path) -> None:
        """Read the archive's directory.

        Raises BundleIntegrityError when an entry is not plainly stored inside it, or its frame was changed.
        """
        self.path = path
        with self._damage_named("its directory"), path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            self._entries = {entry.filename: entry for entry in entries}
            self._check_directory(entries)
            if frame_digest(file, entries).encode() != archive.comment:
                raise zipfile.BadZipFile("what lies between its files does not fit the recorded sha256")

    def names(self) -> frozenset[str] | None:
        """Return the names of all entries."""
        return frozenset(self._entries)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one entry's bytes, a piece at a time."""
        entry = self._entry(name)
        with self._damage_named(name), zipfile.ZipFile(self.path) as archive, archive.open(entry) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def source(self, name: str) -> bytes:
        """Return the bytes of one entry."""
        return b"".join(self.chunks(name))

    def view(self, name: str) -> memoryview:
        """Return one entry's bytes, mapped where they lie."""
        entry = self._entry(name)
        with self._damage_named(name), self.path.open("rb") as file:
            start = entry.header_offset + _header_bytes(file, entry)
            return mapped(self.path)[start : start + entry.file_size]

    def size_bytes(self, name: str) -> int:
        """Return the length of one entry."""
        return self._entry(name).file_size

    def stamp(self, name: str) -> Stamp:
        """Return the archive's own stamp and where the entry lies in it."""
        return (*stamp_of(self.path), self._entry(name).header_offset)

    @contextmanager
    def _damage_named(self, what: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            reason = f"{self.path}: {what} cannot be read ({error}). The archive is damaged: copy or pack it again."
            raise BundleIntegrityError(reason) from error

    def _entry(self, name: str) -> zipfile.ZipInfo:
        check_name(self.path, name)
        if name not in self._entries:
            raise BundleIntegrityError(
                f"{self.path}: {name} is missing. Copy the whole archive again, or pack it again."
            )
        return self._entries[name]

    def _check_directory(self, entries: Sequence[zipfile.ZipInfo]) -> None:
        twice = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
        if twice:
            raise BundleIntegrityError(f"{self.path} holds {twice[0]!r} twice. Do not use this bundle.")
        for entry in entries:
            if fault := _fault(entry):
                raise BundleIntegrityError(
                    f"{self.path}: the entry {entry.filename!r} {fault}, expected a plain stored file. "
                    "Make the archive with `mmalign pack`."
                )
            check_name(self.path, entry.filename)


def is_archive(path: Path) -> bool:
    """Say whether a file, whatever its suffix, is a zip with a bundle.json: our own begin with it. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_LOCAL_HEADER.size + len(SPEC_NAME))
    if head.startswith(_LOCAL_SIGNATURE) and head.endswith(SPEC_NAME.encode()):
        return True  # also where its directory is damaged
    try:
        with zipfile.ZipFile(path) as archive:
            return SPEC_NAME in archive.namelist()
    except _DAMAGED:
        return False


def write_archive(contents: Readable, names: Sequence[str], file: IO[bytes]) -> None:
    """Write the named files to one archive, first name first. The same files give the same bytes on every machine."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)  # dated 1980, as every zip without a date
            entry.create_system = 3  # Unix, also where it is made elsewhere: it says how the mode below is read
            entry.external_attr = _PLAIN_FILE << _UNIX_MODE_SHIFT
            entry.file_size = contents.size_bytes(name)
            with archive.open(entry, "w") as target:
                for chunk in contents.chunks(name):
                    target.write(chunk)
        archive.comment = b"0" * _FRAME_DIGITS
        entries = archive.infolist()
    digest = frame_digest(file, entries)
    file.seek(-_FRAME_DIGITS, 2)
    file.write(digest.encode())


def frame_digest(file: IO[bytes], entries: Sequence[zipfile.ZipInfo]) -> str:
    """Return the sha256 of all that is neither a file's data nor the comment. Raises BadZipFile when data overlap."""
    digest = hashlib.sha256()
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        data = entry.header_offset + _header_bytes(file, entry)
        if entry.header_offset < position:  # overlapping entries would let a small archive hold a large one
            raise zipfile.BadZipFile(f"{entry.filename!r} overlaps another entry")
        digest.update(_between(file, position, data))
        position = data + entry.file_size
    end = file.seek(0, 2) - _FRAME_DIGITS
    digest.update(_between(file, position, end))
    return digest.hexdigest()


def _header_bytes(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    file.seek(entry.header_offset)
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(_LOCAL_HEADER.size + name_bytes + extra_bytes)


def _between(file: IO[bytes], start: int, end: int) -> bytes:
    if end < start:
        raise zipfile.BadZipFile("an entry leaves the archive")
    if end - start > _MAX_FRAME_BYTES:
        raise zipfile.BadZipFile("it has a gap between its files")
    file.seek(start)
    return file.read(end - start)


def _fault(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        return "is compressed"
    if stat.S_ISLNK(entry.external_attr >> _UNIX_MODE_SHIFT):
        return "is a link"
    return "is a folder" if entry.is_dir() else ""
