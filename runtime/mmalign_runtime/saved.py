"""Vectors on disk: their ids, the space they live in, and the variant that made them, as Parquet or .npz."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.atomic import replacing
from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, damaged, open_parquet, require_pyarrow

UNKNOWN_VARIANT = "unknown"

_PARQUET = ".parquet"
_NPZ = ".npz"
_NAMES = ("id", "vector", "space_id")  # columns of the Parquet file, arrays of the .npz
_VARIANT = "variant_id"


class SavedVectors(msgspec.Struct, frozen=True, eq=False):
    """`vectors` (N, D) float32 of one space, row i belonging to `ids[i]`.

    `variant_id` is "unknown" for a Parquet file that another tool wrote again without our metadata.
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    space_id: str
    variant_id: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32 or len(self.vectors) != len(self.ids):
            seen = f"{self.vectors.shape} {self.vectors.dtype} for {len(self.ids)} ids"
            raise ValueError(f"vectors are {seen}, expected ({len(self.ids)}, D) float32.")


def save_vectors(path: str | Path, saved: SavedVectors) -> None:
    """Write vectors to a .parquet or .npz file, replacing what was there in one step.

    Raises InputError when the place cannot be written to, MissingDependencyError when Parquet needs pyarrow.
    """
    target = Path(path)
    check_output(target)
    try:
        with replacing(target) as temporary, temporary.open("wb") as file:
            (_write_parquet if target.suffix == _PARQUET else _write_npz)(file, saved)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}. Nothing was changed there.") from error


def load_vectors(path: str | Path) -> SavedVectors:
    """Read what `save_vectors` wrote.

    Raises InputError when there is no such file, it is damaged, a column is missing or of another type, or its rows
    live in several spaces.
    """
    source = Path(path)
    _check_suffix(source)
    if not source.is_file():
        raise InputError(f"{source}: there is no such file. Make one with `mmalign embed BUNDLE INPUT --out {source}`.")
    return _read_parquet(source) if source.suffix == _PARQUET else _read_npz(source)


def check_output(path: Path) -> None:
    """Find out, before any work is done, whether `save_vectors` could write to `path`. Raises what it would raise."""
    _check_suffix(path)
    if path.suffix == _PARQUET:
        require_pyarrow()
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder, so {path.name} cannot be written to it. Make it first.")


def _check_suffix(path: Path) -> None:
    if path.suffix not in (_PARQUET, _NPZ):
        raise InputError(f"{path} ends in {path.suffix!r}, expected {_PARQUET} or {_NPZ}. Choose one of the two.")


def _write_parquet(file: IO[bytes], saved: SavedVectors) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(saved.vectors.reshape(-1), pa.float32())  # (N * D,)
    columns = [
        pa.array(saved.ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, saved.vectors.shape[1]),
        pa.array([saved.space_id] * len(saved.ids), pa.string()),
    ]
    table = pa.Table.from_arrays(columns, names=list(_NAMES))
    metadata = {"space_id": saved.space_id, _VARIANT: saved.variant_id}
    pq.write_table(table.replace_schema_metadata(metadata), file)


def _read_parquet(path: Path) -> SavedVectors:
    file = open_parquet(path)
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in _NAMES:
        check_column(file, name, path)
    try:
        table = file.read(list(_NAMES))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    kind = table.schema.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32() or table.column("vector").null_count:
        raise InputError(f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>[D] without nulls.")
    ids, spaces = (table.column(name).cast(pa.string()).to_pylist() for name in ("id", "space_id"))
    vectors = pc.list_flatten(table.column("vector")).to_numpy().reshape(-1, kind.list_size)  # (N, D)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    spaces += [metadata["space_id"]] if "space_id" in metadata else []
    return _checked(path, ids, vectors, spaces, metadata.get(_VARIANT, UNKNOWN_VARIANT))


def _write_npz(file: IO[bytes], saved: SavedVectors) -> None:
    np.savez(
        file,
        id=np.array(saved.ids, dtype=np.str_),
        vector=saved.vectors,
        space_id=np.array(saved.space_id),
        variant_id=np.array(saved.variant_id),
    )


def _read_npz(path: Path) -> SavedVectors:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz archive: it is damaged or incomplete. Embed again.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = (*_NAMES, _VARIANT)
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise InputError(f"{path} has no array {missing[0]!r}; it has {', '.join(archive.files)}. Embed again.")
            ids, vectors, spaces, variant = (archive[name] for name in names)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}). Embed again.") from error
    return _checked(path, ids.tolist(), vectors, spaces.reshape(-1).tolist(), str(variant))


def _checked(
    path: Path, ids: Sequence[object], vectors: NDArray[np.generic], spaces: Sequence[object], variant_id: str
) -> SavedVectors:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(ids) or None in ids:
        seen = f"{vectors.shape} {vectors.dtype} and {len(ids)} ids"
        raise InputError(f"{path}: seen vectors {seen}, expected (N, D) float32 and N ids. Embed again.")
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: some vectors hold NaN or infinity, which no bundle gives. Embed again.")
    found = sorted({str(space) for space in spaces})
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise InputError(f"{path}: expected the vectors of one space, seen {names}. Keep each space in its own file.")
    return SavedVectors(tuple(map(str, ids)), vectors.astype(np.float32, copy=False), found[0], variant_id)
