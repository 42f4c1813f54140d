"""What `mmalign embed` reads: a folder, a glob, a list file or Parquet files, as a sized iterable of entries.

Nothing is read before its turn: a folder is listed and a file's lines are counted, then each entry is read when asked
for. Text that is no UTF-8 keeps its bytes as lone surrogates, so that the tokenizer reports it as an item of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from mmalign_runtime.bulk.entries import Entry, Source
from mmalign_runtime.bulk.listing import is_pattern, matching, readable, walk
from mmalign_runtime.bulk.tables import ParquetSource
from mmalign_runtime.errors import InputError
from mmalign_runtime.image_suffixes import IMAGE_SUFFIXES
from mmalign_runtime.parquet import PARQUET_SUFFIX
from mmalign_runtime.spec import Modality

TEXT_SUFFIXES = frozenset({".txt"})

# Gives the paths again each time: a listing is not held, it is made once more.
Listing: TypeAlias = Callable[[], Iterator[str]]

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
    if path.is_dir():
        prefix = path.as_posix().rstrip("/") + "/"
        return _open_listed(lambda: walk(prefix), prefix, kind, path, column, id_column)
    if path.is_file():
        return _open_file(path, kind, column, id_column)
    if not is_pattern(str(path)):
        raise InputError(f"{path}: there is no such file or folder. Check the path.")
    return _open_listed(lambda: matching(path), "", kind, path, column, id_column)


class FileSource:
    """The files of one kind among those listed: an image is its path, a text is what its .txt file holds.

    Ids are paths without `prefix`. The listing is made twice: to count, and to embed.
    """

    def __init__(self, listing: Listing, prefix: str, kind: Modality) -> None:
        self._listing = listing
        self._prefix = prefix
        self._kind = kind
        self._len = sum(1 for _ in self._paths())

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Entry]:
        return self.entries(0)

    def entries(self, start: int) -> Iterator[Entry]:
        """Yield the entries from number `start` on."""
        for path in islice(self._paths(), start, None):
            name = _as_id(path.removeprefix(self._prefix))
            yield Entry(name, Path(path)) if self._kind == "image" else _read_text(name, Path(path))

    def fingerprint(self) -> str:
        """Return a hash of the names; two files with their contents exchanged have the same."""
        digest = hashlib.sha256()
        for path in self._paths():
            digest.update(path.removeprefix(self._prefix).encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()

    def _paths(self) -> Iterator[str]:
        return (path for path in self._listing() if _is_kind(path, self._kind))


class ListSource:
    """A .txt file: one text a line (an empty line is an empty text), or one image path (empty lines are skipped)."""

    def __init__(self, path: Path, kind: Modality) -> None:
        self._path = path
        self._kind = kind
        self._len = sum(1 for _ in self)
        if not self._len:
            raise InputError(f"{path} is empty, expected one {'path' if kind == 'image' else 'text'} a line.")

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Entry]:
        with readable(self._path), self._path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file):
                row = line.rstrip("\n")
                if self._kind == "text":
                    yield Entry(str(number), row)
                elif row.strip():
                    yield Entry(_as_id(row), self._path.parent / row)

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
    if tables := [Path(path) for path in listing() if path.endswith(PARQUET_SUFFIX)]:
        return ParquetSource(tables, kind, column, id_column)
    raise InputError(_no_columns(origin, "holds") if wants_tables else _nothing_found(origin, kind, listing))


def _open_file(path: Path, kind: Modality, column: str | None, id_column: str | None) -> Source:
    if path.suffix == PARQUET_SUFFIX:
        return ParquetSource([path], kind, column, id_column)
    if column or id_column:
        raise InputError(_no_columns(path, "is"))
    if path.suffix.lower() in TEXT_SUFFIXES:
        return ListSource(path, kind)
    if kind == "image" and path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource(lambda: iter([str(path)]), f"{path.parent}/", kind)
    raise InputError(f"{path} ends in {path.suffix!r}, expected a folder, a .txt list, a .parquet file, or one image.")


def _is_kind(path: str, kind: Modality) -> bool:
    return path.lower().endswith(tuple(_SUFFIXES[kind]))


def _as_id(name: str) -> str:
    # A file name that is no UTF-8 reaches Python with lone surrogates, which no file of vectors could hold.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_text(name: str, path: Path) -> Entry:
    try:
        return Entry(name, path.read_text("utf-8-sig", errors="surrogateescape").rstrip("\r\n"))
    except OSError as error:
        return Entry(name, path, problem=f"{error.strerror}; expected a readable file.")


def _no_columns(origin: Path, verb: str) -> str:
    return f"{origin} {verb} no .parquet file, so it has no columns. Leave --column and --id-column out."


def _nothing_found(origin: Path, kind: Modality, listing: Listing) -> str:
    others = sum(_is_kind(path, _OTHER[kind]) for path in listing())
    hint = f"It holds {others} {_OTHER[kind]} files: add `--kind {_OTHER[kind]}`." if others else "Check the path."
    return f"{origin} holds no {kind} files ({', '.join(sorted(_SUFFIXES[kind]))}). {hint}"
