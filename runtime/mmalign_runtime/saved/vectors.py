"""Vectors on disk: their ids, the space they live in, and the variant that made them, as Parquet or .npz.

Parquet is one file, or a folder of the parts that a bulk embedding wrote.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.atomic import replacing
from mmalign_runtime.errors import InputError
from mmalign_runtime.names import is_utf8
from mmalign_runtime.parquet import (
    PARQUET_SUFFIX,
    check_column,
    metadata_of,
    open_parquet,
    require_pyarrow,
    row_groups,
    write_table,
)
from mmalign_runtime.places import check_place
from mmalign_runtime.saved.manifest import MANIFEST_KEY, decode_manifest, read_manifest, unfinished_folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

VECTOR_COLUMNS = ("id", "vector", "space_id")

UNKNOWN_VARIANT = "unknown"

_NPZ = ".npz"
_VARIANT = "variant_id"


# What numpy and zipfile raise on damaged archives, found by flipping bits.
_DAMAGED_NPZ = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write_vectors(
    file: Path | IO[bytes], ids: Sequence[str], vectors: NDArray[np.float32], metadata: Mapping[str, str]
) -> None:
    """Write N ids and vectors (N, D) as one table; `metadata` has at least the `space_id`, which is a column too."""
    import pyarrow as pa

    flat = pa.array(vectors.reshape(-1), pa.float32())  # (N * D,)
    columns = [
        pa.array(ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        pa.array([metadata["space_id"]] * len(ids), pa.string()),
    ]
    table = pa.Table.from_arrays(columns, names=list(VECTOR_COLUMNS))
    write_table(file, table.replace_schema_metadata(dict(metadata)))


def open_vectors(path: Path) -> pq.ParquetFile:
    """Open a table of vectors. Raises InputError when a column is missing or of another type."""
    import pyarrow as pa

    file = open_parquet(path)
    for name in VECTOR_COLUMNS:
        check_column(file, name, path)
    kind = file.schema_arrow.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise InputError(f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>[D] without nulls.")
    return file


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
        wrong = next((name for name in self.ids if not isinstance(name, str) or not is_utf8(name)), None)
        if wrong is not None:
            raise ValueError(f"the id {wrong!r} is not Unicode text, expected str without lone surrogates.")


def save_vectors(path: str | Path, saved: SavedVectors) -> None:
    """Write vectors to a .parquet or .npz file, replacing what was there in one step.

    Raises InputError when the place cannot be written to, MissingDependencyError when Parquet needs pyarrow.
    """
    target = Path(path)
    check_output(target)
    try:
        with replacing(target) as temporary, temporary.open("wb") as file:
            if target.suffix == PARQUET_SUFFIX:
                write_vectors(file, saved.ids, saved.vectors, {"space_id": saved.space_id, _VARIANT: saved.variant_id})
            else:
                _write_npz(file, saved)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}. Nothing was changed there.") from error


def load_vectors(path: str | Path) -> SavedVectors:
    """Read what `save_vectors` or `mmalign embed` wrote: a file, or a folder of parts.

    Raises InputError when there is no such file, it is damaged, a column is missing or of another type, its rows live
    in several spaces, or the folder's run is not complete.
    """
    source = Path(path)
    if source.is_dir():
        return _read_folder(source)
    _check_suffix(source)
    if not source.exists() and unfinished_folder(source).is_dir():
        raise InputError(f"{source} is not complete yet. Finish it: the same `mmalign embed` command with --resume.")
    if not source.is_file():
        raise InputError(f"{source}: there is no such file. Make one with `mmalign embed BUNDLE INPUT --out {source}`.")
    return _read_parquet([source]) if source.suffix == PARQUET_SUFFIX else _read_npz(source)


def check_output(path: Path) -> None:
    """Find out, before any work is done, whether `save_vectors` could write to `path`. Raises what it would raise."""
    _check_suffix(path)
    if path.suffix == PARQUET_SUFFIX:
        require_pyarrow()
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file's name. Choose another, or remove the folder.")
    check_place(path)


def _check_suffix(path: Path) -> None:
    if path.suffix not in (PARQUET_SUFFIX, _NPZ):
        raise InputError(f"{path} ends in {path.suffix!r}, expected {PARQUET_SUFFIX} or {_NPZ}. Choose one of the two.")


def _read_folder(folder: Path) -> SavedVectors:
    manifest = read_manifest(folder)
    if manifest is not None and not manifest.is_complete:
        raise InputError(f"{folder} is not complete yet. Finish it: the same `mmalign embed` command with --resume.")
    parts = sorted(path for path in folder.glob(f"*{PARQUET_SUFFIX}") if path.name[0] not in "._")
    if not parts:
        raise InputError(f"{folder} holds no {PARQUET_SUFFIX} files. Make some with `mmalign embed --out {folder}`.")
    saved = _read_parquet(parts)
    if manifest is not None and len(saved.ids) != (expected := manifest.num_items - manifest.num_failed):
        raise InputError(
            f"{folder} holds {len(saved.ids)} vectors, expected {expected}. Make the lost part again: --resume."
        )
    return saved


def _read_parquet(paths: Sequence[Path]) -> SavedVectors:
    require_pyarrow()
    import pyarrow.compute as pc

    origin = paths[0] if len(paths) == 1 else paths[0].parent
    num_rows, embed_dim = _shape(paths, origin)
    vectors = _room(origin, num_rows, embed_dim)
    ids: list[str | None] = []
    spaces: set[str | None] = set()
    for group in chain.from_iterable(row_groups(path, VECTOR_COLUMNS) for path in paths):
        if group.column("vector").null_count:
            raise InputError(f"{origin}: column 'vector' has nulls, expected vectors alone. Embed again.")
        start, flat = len(ids), pc.list_flatten(group.column("vector"))  # (n * D,)
        ids += _strings(group, "id")
        vectors[start : len(ids)] = flat.to_numpy().reshape(group.num_rows, embed_dim)  # (n, D)
        spaces.update(_strings(group, "space_id"))
    metadata = [metadata_of(path) for path in paths]
    for found in metadata:
        if MANIFEST_KEY in found:
            decode_manifest(found[MANIFEST_KEY].encode(), origin)  # refuses what an earlier version computed wrongly
    spaces.update(found["space_id"] for found in metadata if "space_id" in found)
    variants = {found.get(_VARIANT, UNKNOWN_VARIANT) for found in metadata}
    return _checked(origin, ids, vectors, list(spaces), variants.pop() if len(variants) == 1 else UNKNOWN_VARIANT)


def _room(origin: Path, num_rows: int, embed_dim: int) -> NDArray[np.float32]:
    try:
        return np.empty((num_rows, embed_dim), np.float32)  # (N, D)
    except (MemoryError, ValueError) as error:  # a footer that promises too much, or truly too little memory
        seen = f"{num_rows:,} vectors of {embed_dim}"
        raise InputError(f"{origin} promises {seen}, which this memory does not hold: {error}. Is it whole?") from error


def _shape(paths: Sequence[Path], origin: Path) -> tuple[int, int]:
    num_rows, sizes = 0, set()
    for path in paths:
        file = open_vectors(path)
        num_rows += file.metadata.num_rows
        sizes.add(file.schema_arrow.field("vector").type.list_size)
    if len(sizes) != 1:
        raise InputError(f"{origin}: vectors of {sorted(sizes)} numbers, expected one length. Keep them apart.")
    return num_rows, sizes.pop()


def _strings(group: pa.Table, name: str) -> list[str | None]:
    import pyarrow as pa

    return group.column(name).cast(pa.string()).to_pylist()


def _write_npz(file: IO[bytes], saved: SavedVectors) -> None:
    if ended := [name for name in saved.ids if name.endswith("\0")]:
        raise InputError(f"the id {ended[0]!r} ends in a NUL, which numpy takes off. Write {PARQUET_SUFFIX} instead.")
    np.savez(
        file,
        id=np.array(saved.ids, dtype=np.str_),
        vector=saved.vectors,
        space_id=np.array(saved.space_id),
        variant_id=np.array(saved.variant_id),
    )


def _read_npz(path: Path) -> SavedVectors:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz archive: it is damaged or incomplete. Embed again.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # np.load leaves a damaged one open
            names = (*VECTOR_COLUMNS, _VARIANT)
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise InputError(f"{path} has no array {missing[0]!r}; it has {', '.join(archive.files)}. Embed again.")
            ids, vectors, spaces, variant = (archive[name] for name in names)
    except _DAMAGED_NPZ as error:
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
