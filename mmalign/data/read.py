"""Read the pairs of a source: `iter_pairs` one at a time, `read_pairs` all of them.

A reader turns one file into rows of cells; this module joins the files and decides what a rejected row costs.
"""

import logging
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from mmalign.data.cells import Cells, HashImage, to_pair
from mmalign.data.errors import DataConfigError, EmptySourceError, RowError, SourceError
from mmalign.data.identity import hash_image
from mmalign.data.pair import Pair, PairSet, RejectedRow
from mmalign.data.source import FORMATS, DataSource, Format, SourceFiles, find_files

logger = logging.getLogger(__name__)

Reader = Callable[[Path, DataSource], Iterator[Cells | RejectedRow]]


def reader_of(name: Format) -> Reader:
    """Return the function that reads the files of a format."""
    reader: Reader = pkgutil.resolve_name(f"mmalign.data.{FORMATS[name].reader}")
    return reader


def iter_pairs(source: DataSource) -> Iterator[Pair | RejectedRow]:
    """Yield the pairs of `source` and the rows that could not become one, in reading order.

    Little is held in memory, except for COCO, where it is one file. Raises `SourceError` or
    `DataConfigError`, at once if no file is found and while iterating if one of them cannot be read.
    """
    return _rows(find_files(source))


def _rows(files: SourceFiles) -> Iterator[Pair | RejectedRow]:
    is_empty = True
    hash_of = _remembering({})
    for path in files.paths:
        for row in rows_of_file(path, files, hash_of):
            is_empty = False
            yield row
    if is_empty:
        raise EmptySourceError(
            f"{files.source.path}, read as {files.format}, holds nothing; expected one or more pairs. "
            "Check path, set format if it is something else, or give a pattern for files in nested folders"
        )


def rows_of_file(path: Path, files: SourceFiles, hash_of: HashImage) -> Iterator[Pair | RejectedRow]:
    """Yield what one of a source's files holds, in its order. Raises `SourceError`."""
    try:
        for row in reader_of(files.format)(path, files.source):
            yield to_pair(row, files, hash_of) if isinstance(row, Cells) else row
    except OSError as error:
        advice = "Expected a readable file or folder; check its permissions and its disk"
        raise SourceError(f"{path} cannot be read ({error}). {advice}") from error


def _remembering(hashes: dict[Path, str]) -> HashImage:
    def hash_of(image: Path | bytes) -> str:
        if isinstance(image, bytes):
            return hash_image(image)
        if image not in hashes:  # tables with a row a caption name each file several times
            hashes[image] = hash_image(image)
        return hashes[image]

    return hash_of


def read_pairs(source: DataSource, *, on_error: Literal["raise", "skip"] = "raise") -> PairSet:
    """Read all pairs of `source`.

    A row that cannot be read raises `RowError`; with `on_error = "skip"` it is listed in `rejected` instead.
    Raises `SourceError` or `DataConfigError` whatever `on_error` says. All pairs are held in memory, and with
    them the images that lie in the source itself (Parquet bytes, shards); `iter_pairs` does without.
    """
    if on_error not in ("raise", "skip"):
        raise DataConfigError(f'on_error = {on_error!r} is unknown; expected "raise" or "skip"')
    pairs: list[Pair] = []
    rejected: list[RejectedRow] = []
    for row in iter_pairs(source):
        if isinstance(row, Pair):
            pairs.append(row)
        elif on_error == "raise":
            raise rejection(row)
        else:
            rejected.append(row)
    _report(source, len(pairs), rejected)
    return PairSet(tuple(pairs), tuple(rejected))


def rejection(row: RejectedRow) -> RowError:
    """Return the error of a row that is not to be skipped."""
    advice = 'Repair it, or set on_error = "skip" to leave such rows out and count them'
    return RowError(f"{row.origin}: {row.reason}. {advice}")


def _report(source: DataSource, num_pairs: int, rejected: list[RejectedRow]) -> None:
    if not rejected:
        return
    first = f"the first is {rejected[0].origin}: {rejected[0].reason}"
    if num_pairs == 0:
        raise EmptySourceError(
            f"{source.path}: all {len(rejected)} rows were rejected; {first}. "
            "Expected one or more pairs; check the columns and image_root"
        )
    num_rows = num_pairs + len(rejected)
    logger.warning("%s: skipped %d of %d rows; %s", source.path, len(rejected), num_rows, first)
