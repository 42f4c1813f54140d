"""What `mmalign embed` reads: a folder, a glob, a list file or a Parquet file, as a sized iterable of entries.

Nothing is read before its turn: a folder is listed and a file's lines are counted, then each entry is read when asked
for. Text that is no UTF-8 keeps its bytes as lone surrogates, so that the tokenizer reports it as an item of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

import msgspec

from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, damaged, open_parquet
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TEXT_SUFFIXES = frozenset({".txt"})

_SUFFIXES: dict[Modality, frozenset[str]] = {"image": IMAGE_SUFFIXES, "text": TEXT_SUFFIXES}
_OTHER: dict[Modality, Modality] = {"image": "text", "text": "image"}
_GLOB_CHARACTERS = frozenset("*?[")
# Rows of a Parquet file held in memory at a time; a row may be a whole image.
_ROWS_AT_ONCE = 64


class Entry(msgspec.Struct, frozen=True):
    """One thing to embed: `item` is a text, or an image's path or bytes."""

    id: str
    item: str | Path | bytes


class Source(Protocol):
    """A known number of entries, read one after the other."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...


def open_source(
    source: str | Path, kind: Modality, *, column: str | None = None, id_column: str | None = None
) -> Source:
    """Open a folder, glob, list file (.txt, one path or text a line) or Parquet file of images or texts.

    Ids are paths relative to the folder, or as the glob or the list has them; rows of texts and of Parquet files are
    numbered from 0, unless `id_column` names a column. Paths inside a file are relative to its folder.

    Raises InputError when there is nothing at `source`, nothing of this kind in it, or no such column.
    """
    path = Path(source)
    if path.suffix == ".parquet" and path.is_file():
        return ParquetSource(path, kind, column, id_column)
    if column or id_column:
        raise InputError(f"{path} is no .parquet file, so it has no columns. Leave --column and --id-column out.")
    if path.is_dir():
        files = _walk(path)
        return FileSource({file.relative_to(path).as_posix(): file for file in files}, kind, path)
    if path.is_file():
        return _open_file(path, kind)
    if not _GLOB_CHARACTERS & set(str(path)):
        raise InputError(f"{path}: there is no such file or folder. Check the path.")
    return FileSource({file.as_posix(): file for file in _glob(path)}, kind, path)


class FileSource:
    """The files of one kind among those found: an image is its path, a text is what its .txt file holds."""

    def __init__(self, found: dict[str, Path], kind: Modality, origin: Path) -> None:
        self._kind = kind
        self._files = {name: path for name, path in found.items() if path.suffix.lower() in _SUFFIXES[kind]}
        if not self._files:
            raise InputError(_nothing_found(origin, kind, list(found.values())))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Entry]:
        for name, path in self._files.items():
            yield Entry(_as_id(name), path if self._kind == "image" else _read_text(path))


class ListSource:
    """A .txt file: one text a line (an empty line is an empty text), or one image path (empty lines are skipped)."""

    def __init__(self, path: Path, kind: Modality) -> None:
        self._path = path
        self._kind = kind
        try:
            self._len = sum(1 for _ in self)
        except OSError as error:
            raise _unreadable(error) from error
        if not self._len:
            raise InputError(f"{path} is empty, expected one {'path' if kind == 'image' else 'text'} a line.")

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Entry]:
        with self._path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file):
                row = line.rstrip("\n")
                if self._kind == "text":
                    yield Entry(str(number), row)
                elif row.strip():
                    yield Entry(_as_id(row), self._path.parent / row)


class ParquetSource:
    """A column of a Parquet file: texts, image paths, or the bytes of image files."""

    def __init__(self, path: Path, kind: Modality, column: str | None, id_column: str | None) -> None:
        self._path = path
        self._kind = kind
        self._file = open_parquet(path)
        self._id_column = id_column
        for name in filter(None, (column, id_column)):
            check_column(self._file, name, path)
        self._column = self._fitting(column)

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    def __iter__(self) -> Iterator[Entry]:
        number = 0
        for batch in self._batches():
            values = batch.column(self._column).to_pylist()
            ids = batch.column(self._id_column).to_pylist() if self._id_column else range(number, number + len(values))
            number += len(values)
            for name, value in zip(ids, values, strict=True):
                if name is None:
                    raise InputError(
                        f"{self._path}: column {self._id_column!r} has an empty row. Fill it, or leave it out."
                    )
                yield Entry(str(name), self._item(value))

    def _item(self, value: object) -> str | Path | bytes:
        if self._kind == "image" and isinstance(value, str):
            return self._path.parent / value
        return cast("str | bytes", value)  # or a null, which the encoder reports as an item of its own

    def _fitting(self, asked: str | None) -> str:
        schema = self._file.schema_arrow
        wanted = "texts" if self._kind == "text" else "image paths or bytes"
        fitting = [field.name for field in schema if field.name != self._id_column and _fits(field.type, self._kind)]
        if asked is not None and asked not in fitting:
            raise InputError(f"{self._path}: column {asked!r} is {schema.field(asked).type}, expected {wanted}.")
        if asked is None and len(fitting) != 1:
            names = ", ".join(map(repr, fitting)) or "none"
            raise InputError(f"{self._path}: columns that could hold {wanted}: {names}. Name one with --column.")
        return asked or fitting[0]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        columns = list(dict.fromkeys((self._column, self._id_column or self._column)))
        try:
            yield from self._file.iter_batches(_ROWS_AT_ONCE, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from error


def _open_file(path: Path, kind: Modality) -> Source:
    if path.suffix.lower() in TEXT_SUFFIXES:
        return ListSource(path, kind)
    if kind == "image" and path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource({path.name: path}, kind, path)
    raise InputError(f"{path} ends in {path.suffix!r}, expected a folder, a .txt list, a .parquet file, or one image.")


def _walk(folder: Path) -> list[Path]:
    return sorted(
        Path(parent) / name for parent, _, names in os.walk(folder, onerror=_refuse_unreadable) for name in names
    )


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> InputError:
    return InputError(f"{error.filename} cannot be read: {error.strerror}. Check its permissions.")


def _glob(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor or ".")
    return sorted(path for path in root.glob(str(pattern.relative_to(pattern.anchor))) if path.is_file())


def _as_id(name: str) -> str:
    # A file name that is no UTF-8 reaches Python with lone surrogates, which no file of vectors could hold.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", errors="surrogateescape").rstrip("\r\n")
    except OSError as error:
        raise _unreadable(error) from error


def _nothing_found(origin: Path, kind: Modality, found: Sequence[Path]) -> str:
    others = sum(path.suffix.lower() in _SUFFIXES[_OTHER[kind]] for path in found)
    hint = f"It holds {others} {_OTHER[kind]} files: add `--kind {_OTHER[kind]}`." if others else "Check the path."
    return f"{origin} holds no {kind} files ({', '.join(sorted(_SUFFIXES[kind]))}). {hint}"


def _fits(kind: pa.DataType, modality: Modality) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _fits(kind.value_type, modality)
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return is_text or (modality == "image" and (types.is_binary(kind) or types.is_large_binary(kind)))
