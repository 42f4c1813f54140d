"""What `mmalign embed` reads: a folder, a glob, a list file or Parquet files, as a sized iterable of entries.

Nothing is read before its turn: a folder is listed and a file's lines are counted, then each entry is read when asked
for. A text that is not UTF-8 is a problem of its own, not the end of the input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from mmalign_runtime.bulk.entries import Entry, Source
from mmalign_runtime.bulk.lines import line_end, lines, not_utf8, text_encoding, whole_text
from mmalign_runtime.bulk.listing import LeftOut, is_pattern, matching, readable, walk
from mmalign_runtime.bulk.tables import ParquetSource
from mmalign_runtime.errors import InputError
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES
from mmalign_runtime.names import as_text
from mmalign_runtime.parquet import PARQUET_SUFFIX
from mmalign_runtime.places import foreign
from mmalign_runtime.spec import Modality

TEXT_SUFFIXES = frozenset({".txt"})

# Gives the paths again each time, and notes what it leaves out: a listing is not held, it is made once more.
Listing: TypeAlias = Callable[[LeftOut], Iterator[str]]

_SUFFIXES: dict[Modality, frozenset[str]] = {"image": IMAGE_SUFFIXES, "text": TEXT_SUFFIXES}
_OTHER: dict[Modality, Modality] = {"image": "text", "text": "image"}


def open_source(
    source: str | Path, kind: Modality, *, column: str | None = None, id_column: str | None = None
) -> Source:
    """Open a folder, glob, list file (.txt, one path or text a line) or Parquet file of images or texts.

    A folder or glob that holds none of this kind, or for which a column is named, gives the rows of its Parquet files.
    Ids are paths relative to the folder, or as the glob or the list has them; rows of texts and of Parquet files are
    numbered from 0, unless `id_column` names a column. Paths inside a file are relative to its folder. Ids are not
    checked for being different: that would hold all of them in memory.

    Raises InputError when there is nothing at `source`, nothing of this kind in it, no such column, or a folder in it
    cannot be read.
    """
    path = Path(source)
    if reason := foreign(source):
        raise InputError(f"{as_text(source)}: {reason}")
    with readable(path):
        is_folder, is_file = path.is_dir(), path.is_file()
    if is_folder:
        prefix = path.as_posix().rstrip("/") + "/"
        return _open_listed(lambda left_out: walk(prefix, left_out), prefix, kind, path, column, id_column)
    if is_file:
        return _open_file(path, kind, column, id_column)
    if not is_pattern(str(path)):
        raise InputError(f"{path}: there is no such file or folder. Check the path.")
    return _open_listed(lambda left_out: matching(path, left_out), "", kind, path, column, id_column)


class FileSource:
    """The files of one kind among those listed: an image is its path, a text is what its .txt file holds.

    Ids are paths without `prefix`. The listing is made twice: to count, and to embed.
    """

    remarks: tuple[str, ...]

    def __init__(self, listing: Listing, prefix: str, kind: Modality) -> None:
        self._listing = listing
        self._prefix = prefix
        self._kind = kind
        left_out = LeftOut()
        self._len = sum(1 for _ in self._paths(left_out))
        self.remarks = left_out.remarks()

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Entry]:
        return self.entries(0)

    def entries(self, start: int) -> Iterator[Entry]:
        """Yield the entries from number `start` on."""
        for path in islice(self._paths(), start, None):
            name = as_text(path.removeprefix(self._prefix))
            yield Entry(name, Path(path)) if self._kind == "image" else _read_text(name, Path(path))

    def fingerprint(self) -> str:
        """Return a hash of the names; two files with their contents exchanged have the same."""
        digest = hashlib.sha256()
        for path in self._paths():
            digest.update(path.removeprefix(self._prefix).encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()

    def _paths(self, left_out: LeftOut | None = None) -> Iterator[str]:
        return (path for path in self._listing(left_out or LeftOut()) if _is_kind(path, self._kind))


class ListSource:
    """A .txt file: one text a line (an empty line is an empty text), or one image path (empty lines are skipped).

    UTF-8, or UTF-16 and UTF-32 with a byte order mark. A path may hold bytes that are not UTF-8, a text may not.
    """

    remarks: tuple[str, ...] = ()

    def __init__(self, path: Path, kind: Modality) -> None:
        self._path = path
        self._kind = kind
        with readable(path):
            self._encoding = text_encoding(path)
            self._end = line_end(path, self._encoding)
        self._len = sum(1 for _ in self)
        if not self._len:
            raise InputError(f"{path} is empty, expected one {'path' if kind == 'image' else 'text'} a line.")

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Entry]:
        with readable(self._path):
            for number, row in enumerate(lines(self._path, self._encoding, self._end)):
                if self._kind == "text":
                    yield Entry(str(number), row, problem=not_utf8(row))
                elif row.strip():
                    yield Entry(as_text(row), self._path.parent / row)

    def entries(self, start: int) -> Iterator[Entry]:
        """Yield the entries from number `start` on."""
        return islice(self, start, None)

    def fingerprint(self) -> str:
        """Return a hash of the file."""
        with readable(self._path), self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _open_listed(
    listing: Listing, prefix: str, kind: Modality, origin: Path, column: str | None, id_column: str | None
) -> Source:
    wants_tables = bool(column or id_column)
    if not wants_tables and len(files := FileSource(listing, prefix, kind)):
        return files
    left_out = LeftOut()
    if tables := [Path(path) for path in listing(left_out) if path.endswith(PARQUET_SUFFIX)]:
        return ParquetSource(tables, kind, column, id_column, left_out.remarks())
    raise InputError(_no_columns(origin, "holds") if wants_tables else _nothing_found(origin, kind, listing))


def _open_file(path: Path, kind: Modality, column: str | None, id_column: str | None) -> Source:
    if path.suffix == PARQUET_SUFFIX:
        return ParquetSource([path], kind, column, id_column)
    if column or id_column:
        raise InputError(_no_columns(path, "is"))
    if path.suffix.lower() in TEXT_SUFFIXES:
        return ListSource(path, kind)
    if kind == "image" and path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource(lambda left_out: iter([str(path)]), f"{path.parent}/", kind)
    raise InputError(f"{path} ends in {path.suffix!r}, expected a folder, a .txt list, a .parquet file, or one image.")


def _is_kind(path: str, kind: Modality) -> bool:
    return path.lower().endswith(tuple(_SUFFIXES[kind]))


def _read_text(name: str, path: Path) -> Entry:
    try:
        text = whole_text(path)
    except OSError as error:
        return Entry(name, path, problem=f"{error.strerror}; expected a readable file.")
    except InputError as error:
        return Entry(name, path, problem=str(error))
    return Entry(name, text, problem=not_utf8(text))


def _no_columns(origin: Path, verb: str) -> str:
    return f"{origin} {verb} no .parquet file, so it has no columns. Leave --column and --id-column out."


def _nothing_found(origin: Path, kind: Modality, listing: Listing) -> str:
    left_out = LeftOut()
    others = sum(_is_kind(path, _OTHER[kind]) for path in listing(left_out))
    hint = f"It holds {others} {_OTHER[kind]} files: add `--kind {_OTHER[kind]}`." if others else "Check the path."
    seen = f"{origin} holds no {kind} files ({', '.join(sorted(_SUFFIXES[kind]))})."
    return " ".join([seen, *(f"{remark}." for remark in left_out.remarks()), hint])
