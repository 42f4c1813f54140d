"""Where a bulk embedding goes, and what a run finds there: nothing, another's work, its own to go on with, or all done.

A folder of parts is the output itself. A single .parquet file is merged from parts that stand in a folder beside it
until then; the file carries the manifest, so that it can tell whose it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from mmalign_runtime.bulk.parts import ERRORS_NAME, PartsFolder, errors_path
from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import PARQUET_SUFFIX, metadata_of, require_pyarrow
from mmalign_runtime.places import check_place
from mmalign_runtime.saved.manifest import MANIFEST_KEY, MANIFEST_NAME, Manifest, decode_manifest, unfinished_folder


class Plan(msgspec.Struct, frozen=True):
    """What is to be done: the `manifest` that holds for the run, and whether it begins, goes on or is complete."""

    manifest: Manifest
    state: Literal["begins", "goes on", "complete"]


class Output:
    """An `--out` that is a folder or a .parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_file = path.suffix == PARQUET_SUFFIX and not path.is_dir()
        self.parts_folder = unfinished_folder(path) if self.is_file else path

    @property
    def errors(self) -> Path:
        """Where the table of failures is, when the run is done and any item failed."""
        return errors_path(self.path) if self.is_file else self.path / ERRORS_NAME

    def check(self, *, resume: bool, force: bool) -> None:
        """Find out, before any work is done, whether a run may write here.

        Missing folders above it are made, later. Raises InputError when the place cannot be written to, when there is
        something already and neither `resume` nor `force` says what to do with it, or nothing that could be resumed,
        MissingDependencyError when Parquet needs pyarrow.
        """
        if self.path.suffix not in ("", PARQUET_SUFFIX) and not self.path.is_dir():
            seen = f"{self.path} ends in {self.path.suffix!r}"
            raise InputError(
                f"{seen}, expected a folder's name without a suffix, {PARQUET_SUFFIX} or .npz. Choose one."
            )
        require_pyarrow()
        check_place(self.path)
        self._check_ours(force=force)
        if not self.is_file and self.path.is_file():
            raise InputError(f"{self.path} is a file, expected a folder or a name that ends in {PARQUET_SUFFIX}.")
        begun = (self.parts_folder / MANIFEST_NAME).is_file()
        if not (resume or force) and (begun or (self.is_file and self.path.exists())):
            unfinished = f", unfinished, in {self.parts_folder}" if begun and self.is_file else ""
            raise InputError(
                f"{self.path} is there already{unfinished}. Add --resume to go on with it, --force to replace it, "
                "or choose another --out."
            )
        if resume and not begun and self.is_file and self.path.exists() and self._merged() is None:
            raise InputError(f"{self.path} says nothing of the run that wrote it. Add --force to replace it.")

    def plan(self, parts: PartsFolder, manifest: Manifest, *, resume: bool, force: bool) -> Plan:
        """Say how a run that `manifest` describes finds its output, and make that ready.

        Raises InputError naming what differs when it is to resume a run that would give other rows, and what `check`
        raises.
        """
        self.check(resume=resume, force=force)  # once more: another run may have come before the parts were claimed
        if not resume:
            return self._begin(parts, manifest)
        found, merged = parts.manifest(), self._merged()
        if merged is not None and (found is None or found.run == merged.run):
            self._check_same(manifest, merged)
            parts.clear()  # of a run that was killed just after it was merged
            return Plan(merged, "complete")
        if found is None:
            return self._begin(parts, manifest)
        self._check_same(manifest, found)
        if found.is_complete and not self.is_file and not parts.gaps(found.num_items):
            return Plan(found, "complete")
        return Plan(found, "goes on")

    def finish(self, parts: PartsFolder, manifest: Manifest) -> Manifest:
        """Make the output whole once every item is done, and return the manifest that says so."""
        done = parts.finish(manifest)
        if self.is_file:
            parts.merge(self.path, done)
            parts.clear()
        return done

    def _check_ours(self, *, force: bool) -> None:
        """Raise InputError where --force would replace a table, or a table of failures, that no run wrote."""
        if not (force and self.is_file):
            return
        if self.path.exists() and not self._is_embedding():
            raise InputError(f"{self.path} is a table of something else. Choose another --out, or remove it first.")

    def _is_embedding(self) -> bool:
        try:
            return "space_id" in metadata_of(self.path)
        except InputError:  # damaged, so --force is what mends it
            return True

    def _begin(self, parts: PartsFolder, manifest: Manifest) -> Plan:
        parts.begin(manifest)
        return Plan(manifest, "begins")

    def _merged(self) -> Manifest | None:
        if not self.is_file or not self.path.exists():
            return None
        content = metadata_of(self.path).get(MANIFEST_KEY)
        return None if content is None else decode_manifest(content.encode(), self.path)

    def _check_same(self, now: Manifest, then: Manifest) -> None:
        if differences := now.differences(then):
            raise InputError(
                f"{self.path} was begun differently: {'; '.join(differences)}. Run it as it was begun, or start afresh "
                "with --force."
            )
