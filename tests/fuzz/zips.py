"""Zip archives built field by field, so that one field at a time can lie: what Python's zipfile refuses to write.

Layout as in PKWARE's APPNOTE: a local header before each entry's bytes, the central directory after them, its end last.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import msgspec

# APPNOTE 4.3.7, 4.3.12 and 4.3.16: the fixed parts of the three records, signature first.
_LOCAL = "<IHHHIIIIHH"
_CENTRAL = "<IHHHHIIIIHHHHHII"
_END = "<IHHHHIIH"
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = 0x04034B50, 0x02014B50, 0x06054B50
_VERSION = 20
_EPOCH = 0x0021_0000  # 1980-01-01, 00:00: date in the upper half, time in the lower
_MODE_644 = 0o100644 << 16


# What our archives have there: a sha256 in hexadecimal.
COMMENT_BYTES = 64


class Entry(msgspec.Struct):
    """One file of an archive. A field that is None is what it should be; any other value is written as it is."""

    name: bytes
    data: bytes
    flags: int = 0
    method: int = 0
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    offset: int | None = None
    attributes: int = _MODE_644
    extra: bytes = b""
    local_name: bytes | None = None
    local_size: int | None = None
    comment: bytes = b""


class Archive(msgspec.Struct):
    """A zip. `prefix` and `suffix` are bytes before and after it; the other fields are those of the end record."""

    entries: list[Entry]
    prefix: bytes = b""
    suffix: bytes = b""
    comment: bytes = b"0" * COMMENT_BYTES
    num_entries: int | None = None
    directory_size: int | None = None
    directory_offset: int | None = None

    def to_bytes(self) -> bytes:
        """Write the archive."""
        body, directory = bytearray(self.prefix), bytearray()
        for entry in self.entries:
            directory += _central(entry, len(body))
            body += _local(entry) + entry.data
        count = _or(self.num_entries, len(self.entries)) & 0xFFFF
        size, offset = _or(self.directory_size, len(directory)), _or(self.directory_offset, len(body))
        end = (_END_SIGNATURE, 0, 0, count, count, size & 0xFFFFFFFF, offset & 0xFFFFFFFF, len(self.comment))
        return bytes(body + directory) + struct.pack(_END, *end) + self.comment + self.suffix


def read_archive(data: bytes) -> Archive | None:
    """Return the stored files of a zip as an archive of honest fields, or None when Python cannot read it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [Entry(info.filename.encode(), archive.read(info)) for info in archive.infolist()]
    except Exception:  # noqa: BLE001 - a mutated zip fails in many ways, and then there is nothing to keep
        return None
    return Archive(entries)


def stored(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a plain zip of stored files."""
    return Archive([Entry(name.encode(), data) for name, data in files]).to_bytes()


def _local(entry: Entry) -> bytes:
    name = entry.name if entry.local_name is None else entry.local_name
    size = _or(entry.local_size, len(entry.data)) & 0xFFFFFFFF
    fields = (_VERSION, entry.flags, entry.method, _EPOCH, _crc(entry), size, size, len(name), len(entry.extra))
    return struct.pack(_LOCAL, _LOCAL_SIGNATURE, *fields) + name + entry.extra


def _central(entry: Entry, position: int) -> bytes:
    packed, size = (_or(value, len(entry.data)) & 0xFFFFFFFF for value in (entry.packed_size, entry.size))
    lengths = (len(entry.name), len(entry.extra), len(entry.comment), 0, 0)
    places = (entry.attributes & 0xFFFFFFFF, _or(entry.offset, position) & 0xFFFFFFFF)
    made_by = 0x0300 | _VERSION  # Unix
    fields = (made_by, _VERSION, entry.flags, entry.method, _EPOCH, _crc(entry), packed, size, *lengths, *places)
    return struct.pack(_CENTRAL, _CENTRAL_SIGNATURE, *fields) + entry.name + entry.extra + entry.comment


def _crc(entry: Entry) -> int:
    return _or(entry.crc, zlib.crc32(entry.data)) & 0xFFFFFFFF


def _or(value: int | None, honest: int) -> int:
    return honest if value is None else value
