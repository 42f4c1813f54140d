"""A bulk embedding on disk while it grows: a folder of parts, each whole or not there, and what is still missing.

    vectors/part-000000004096.parquet          the vectors of the items from number 4096 on
    vectors/_errors/part-000000004096.parquet  those of the same items that failed, where any did; written first
    vectors/_mmalign.json                      the manifest

A part is named for the first item it stands for, so a part that was lost is made again in its place, and parts sorted
by name are in the order of the input.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mmalign_runtime.atomic import flush_folder, replacing
from mmalign_runtime.errors import InputError, ItemError
from mmalign_runtime.parquet import (
    concatenate,
    metadata_of,
    open_parquet,
    reading,
    row_groups,
    system_error,
    write_table,
)
from mmalign_runtime.saved.manifest import (
    MANIFEST_KEY,
    MANIFEST_NAME,
    Manifest,
    encode_manifest,
    read_manifest,
    write_manifest,
)
from mmalign_runtime.saved.vectors import write_vectors

if TYPE_CHECKING:
    import pyarrow as pa

    from mmalign_runtime.streaming import StreamedItem, Vectors

ERRORS_NAME = "_errors"

_PARTS = "part-*.parquet"
_NUM_ITEMS = "num_items"
_NUM_TRUNCATED = "num_truncated"


class Failure(msgspec.Struct, frozen=True):
    """One item that was not embedded: its number in the input from 0, its id, the stage that refused it, and why."""

    row: int
    id: str
    stage: str
    reason: str


def write_failures(file: Path, failures: Sequence[Failure]) -> None:
    """Write the failures as a table of their own, with a column for each of their fields.

    A null among the vectors cannot be read back by pyarrow before 26 (measured with 18.1, 22, 23 and 25), and whatever
    else stood in its place would be found by a search.
    """
    import pyarrow as pa

    fields: dict[str, pa.DataType] = {name: pa.string() for name in ("row", "id", "stage", "reason")}
    schema = pa.schema(fields | {"row": pa.int64()})
    write_table(file, pa.Table.from_pylist([msgspec.structs.asdict(failure) for failure in failures], schema))


def read_failures(path: Path) -> list[Failure]:
    """Read what `write_failures` wrote. Raises InputError when it is damaged."""
    file = open_parquet(path)
    with reading(path):
        return msgspec.convert(file.read().to_pylist(), list[Failure])


class Span(msgspec.Struct, frozen=True):
    """The items from number `start` up to `stop`, which is not among them."""

    start: int
    stop: int


class Part(msgspec.Struct):
    """A run of items in memory: what became of each of them. `first` is the number of the first."""

    first: int
    num_items: int = 0
    ids: list[str] = []
    vectors: list[Vectors] = []  # (D,) each
    failures: list[Failure] = []
    num_truncated: int = 0

    def add(self, name: str, streamed: StreamedItem, error: ItemError | None) -> None:
        """Take what became of the next item, whose id is `name`."""
        if error is not None:
            self.failures.append(Failure(self.first + self.num_items, name, error.stage, error.reason))
        elif streamed.vector is not None:
            self.ids.append(name)
            self.vectors.append(streamed.vector)
            self.num_truncated += streamed.truncated
        self.num_items += 1


class PartsFolder:
    """The parts of one run, in a folder that `claim` holds for this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        self._whole: set[Path] = set()  # parts that were read to their end

    def manifest(self) -> Manifest | None:
        """Return the manifest of the run in this folder, or None."""
        return read_manifest(self.folder)

    def begin(self, manifest: Manifest) -> None:
        """Start a run from nothing: remove the parts of another one."""
        try:
            self.clear()
            write_manifest(self.folder, manifest)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def clear(self) -> None:
        """Remove everything that a run writes, the manifest last."""
        for path in (*self.parts(), *self.error_parts()):
            path.unlink()
        if (self.folder / ERRORS_NAME).is_dir():
            (self.folder / ERRORS_NAME).rmdir()
        (self.folder / MANIFEST_NAME).unlink(missing_ok=True)

    def parts(self) -> list[Path]:
        """Return the parts of vectors, in the order of the input."""
        return sorted(self.folder.glob(_PARTS))

    def error_parts(self) -> list[Path]:
        """Return the parts of failures, in the order of the input."""
        return sorted((self.folder / ERRORS_NAME).glob(_PARTS))

    def gaps(self, num_items: int) -> list[Span]:
        """Return the items that no part stands for. A part that is damaged is removed and noted in `damaged`.

        Raises InputError for one that the system does not let us read.
        """
        gaps, done = [], 0
        for path in self.parts():
            span = self._span(path)
            if span is None:
                continue
            gaps += [Span(done, span.start)] if done < span.start else []
            done = span.stop
        self._drop_unclaimed_errors()
        return gaps + ([Span(done, num_items)] if done < num_items else [])

    def num_done(self, num_items: int) -> int:
        """Return how many items have a part."""
        return num_items - sum(gap.stop - gap.start for gap in self.gaps(num_items))

    def forget_if_empty(self) -> None:
        """Remove the manifest of a run that has nothing to show, so that it leaves nothing."""
        if not self.parts():
            self.clear()

    def write(self, part: Part, manifest: Manifest) -> None:
        """Put a part in its place, its failures first: it is the vectors' file that makes it count.

        Raises InputError when the disk is full or the folder cannot be written to.
        """
        name = f"part-{part.first:012d}.parquet"
        stacked = np.stack(part.vectors) if part.vectors else np.empty((0, manifest.embed_dim), np.float32)  # (N, D)
        metadata = {"space_id": manifest.space_id, "variant_id": manifest.variant_id}
        metadata |= {_NUM_ITEMS: str(part.num_items), _NUM_TRUNCATED: str(part.num_truncated)}
        try:
            if part.failures:
                with replacing(self.folder / ERRORS_NAME / name) as temporary:
                    write_failures(temporary, part.failures)
            with replacing(self.folder / name) as temporary:
                write_vectors(temporary, part.ids, stacked, metadata)
        except OSError as error:
            raise cannot_write(self.folder / name, error) from error

    def num_failed(self) -> int:
        """Return how many items failed."""
        return sum(open_parquet(path).metadata.num_rows for path in self.error_parts())

    def first_failures(self, limit: int) -> list[Failure]:
        """Return the first `limit` failures, in the order of the input."""
        found: list[Failure] = []
        for path in self.error_parts():
            if len(found) < limit:
                found += read_failures(path)
        return found[:limit]

    def finish(self, manifest: Manifest) -> Manifest:
        """Write down that the run is complete, and return the manifest that says so."""
        # A part of an earlier version does not say how many texts lost their end, and counts none.
        num_truncated = sum(int(metadata_of(path).get(_NUM_TRUNCATED, 0)) for path in self.parts())
        done = msgspec.structs.replace(
            manifest, is_complete=True, num_failed=self.num_failed(), num_truncated=num_truncated
        )
        try:
            write_manifest(self.folder, done)
        except OSError as error:
            raise cannot_write(self.folder / MANIFEST_NAME, error) from error
        return done

    def merge(self, target: Path, manifest: Manifest) -> None:
        """Put all parts into one file, in one rename, its failures (where any are) into the one beside it before."""
        metadata = {"space_id": manifest.space_id, "variant_id": manifest.variant_id}
        metadata[MANIFEST_KEY] = encode_manifest(manifest).decode()
        try:
            _merge(self.error_parts(), errors_path(target), {}, self.folder)
            _merge(self.parts(), target, metadata, self.folder)
        except OSError as error:
            raise cannot_write(target, error) from error

    def _span(self, path: Path) -> Span | None:
        start = int(path.stem.removeprefix("part-"))
        try:
            if path not in self._whole:
                for _ in row_groups(path):  # every page is held to its checksum
                    pass
                self._whole.add(path)
            return Span(start, start + int(metadata_of(path)[_NUM_ITEMS]))
        except (InputError, KeyError, ValueError) as error:
            if system_error(error.__cause__) is not None:  # not damaged: it may not be read, or the disk fails
                raise
            self.damaged.append(path.name)
            path.unlink()
            return None

    def _drop_unclaimed_errors(self) -> None:
        for path in self.error_parts():
            if not (self.folder / path.name).is_file():
                path.unlink()


def errors_path(target: Path) -> Path:
    """Return the file of failures that belongs to a single file of vectors."""
    return target.with_name(f"{target.stem}.errors{target.suffix}")


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error for a place that the system would not let us write to."""
    reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own words are longer
    fix = "Make room or mend the place, then go on with the same command and --resume: what is there is whole."
    return InputError(f"{path} cannot be written: {reason}. {fix}")


def _merge(parts: Sequence[Path], target: Path, metadata: dict[str, str], folder: Path) -> None:
    if parts:
        with replacing(target, folder=folder) as temporary:
            concatenate(parts, temporary, metadata)
    elif target.exists():
        target.unlink()
        flush_folder(target.parent)
