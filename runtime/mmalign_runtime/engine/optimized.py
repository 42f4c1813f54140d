"""Graphs as onnxruntime optimised them, kept in the user's cache, weights in a file beside them that is mapped.

Such a graph fits one processor and one version of onnxruntime, which are part of its name: it is never shipped, and
never part of a bundle. What is kept is held to its hash, files untouched since then by their stamp, as a bundle's are.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mmalign_runtime.atomic import flush_folder, replacing
from mmalign_runtime.bundle.contents import FileSource, Stamp, stamp_of
from mmalign_runtime.bundle.hashes import cache_dir, sha256_of_file
from mmalign_runtime.engine.processor import cpu_features, cpu_name
from mmalign_runtime.errors import BundleIntegrityError, EngineError
from mmalign_runtime.strict_json import JsonError, read_json

logger = logging.getLogger(__name__)

_FORMAT = "1"
GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "weights.bin"
_RECORD_NAME = "record.json"


class Kept(msgspec.Struct, frozen=True):
    """One file of a kept graph: its hash, and the stamp it had when it was hashed."""

    sha256: str
    stamp: Stamp


def check_sha256(source: FileSource | memoryview, name: str, expected: str) -> None:
    """Raise BundleIntegrityError unless a file, or its bytes, has that hash."""
    found = sha256_of_file(source) if isinstance(source, Path) else hashlib.sha256(source).hexdigest()
    if found != expected:
        raise BundleIntegrityError(
            f"{name} is not the file that its bundle lists: sha256 {found[:12]}..., expected {expected[:12]}.... "
            "Copy the bundle again, or export it again."
        )


class OptimizedGraph:
    """The place of one model's optimised graph: `folder` is named after all that the graph depends on."""

    def __init__(self, model_sha256: str, ort_version: str, external_sha256: Sequence[str] = ()) -> None:
        """`external_sha256` are those of files with its weights. Raises EngineError where there is no cache."""
        base = cache_dir()
        if base is None:
            raise EngineError("there is no folder to keep optimised graphs in. Set XDG_CACHE_HOME, or leave out cache.")
        parts = (_FORMAT, model_sha256, *external_sha256, ort_version, cpu_name(), cpu_features())
        self.folder = base / "optimized" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def path(self) -> Path | None:
        """Return the graph that is kept, or None where there is none, or it is not what was written."""
        record = self.folder / _RECORD_NAME
        try:
            kept = read_json(record.read_bytes(), dict[str, Kept])
            found = {name: self._looked_at(name, kept[name]) for name in (GRAPH_NAME, WEIGHTS_NAME)}
        except FileNotFoundError:
            return None
        except (OSError, JsonError, KeyError) as error:
            logger.warning("%s cannot be used, and is made again: %r", self.folder, error)
            return None
        if any(found[name].sha256 != kept[name].sha256 for name in found):
            logger.warning("%s was changed, and is made again", self.folder)
            return None
        if found != kept:
            self._write_record(self.folder, found)
        return self.folder / GRAPH_NAME

    def make(self, write: Callable[[Path], None]) -> Path:
        """Keep the graph that `write` puts into the folder it is given, and return its path.

        Raises EngineError when it cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".", ignore_cleanup_errors=True) as made:
                temporary = Path(made, "new")
                temporary.mkdir()
                write(temporary)
                names = (GRAPH_NAME, WEIGHTS_NAME)
                kept = {name: Kept(sha256_of_file(temporary / name), stamp_of(temporary / name)) for name in names}
                self._write_record(temporary, kept)
                if (theirs := self.path()) is not None:  # of another process, which may be using it already
                    return theirs
                shutil.rmtree(self.folder, ignore_errors=True)  # what `path` did not want
                temporary.rename(self.folder)
            flush_folder(self.folder.parent)
        except OSError as error:
            reason = f"an optimised graph cannot be kept in {self.folder.parent}: {error.strerror}"
            raise EngineError(f"{reason}. Make room there, set XDG_CACHE_HOME, or leave out cache.") from error
        return self.folder / GRAPH_NAME

    def _looked_at(self, name: str, kept: Kept) -> Kept:
        path = self.folder / name
        stamp = stamp_of(path)
        return kept if stamp == kept.stamp else Kept(sha256_of_file(path), stamp)

    def _write_record(self, folder: Path, kept: dict[str, Kept]) -> None:
        with replacing(folder / _RECORD_NAME) as temporary:
            temporary.write_bytes(msgspec.json.encode(kept))
