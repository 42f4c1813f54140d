"""A bundle of an older format, written again in the format of today: the same files, another bundle.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmalign_runtime.atomic import replacing
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX
from mmalign_runtime.bundle.contents import Contents, FileSource, Stamp
from mmalign_runtime.bundle.packing import check_file, check_folder, not_written, put_archive, put_folder
from mmalign_runtime.spec import SPEC_NAME, encode_spec, read_format
from mmalign_runtime.spec.bundle import FORMAT_MAJOR, FORMAT_MINOR


class Upgraded:
    """The files of a bundle, with other bytes of bundle.json."""

    def __init__(self, contents: Contents, spec: bytes) -> None:
        self.path = contents.path
        self._contents = contents
        self._spec = spec

    def names(self) -> frozenset[str] | None:
        """Return the names of the bundle's own files."""
        return self._contents.names()

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield one file's bytes, a piece at a time."""
        return iter([self._spec]) if name == SPEC_NAME else self._contents.chunks(name)

    def source(self, name: str) -> FileSource:
        """Return one file as a path or as bytes."""
        return self._spec if name == SPEC_NAME else self._contents.source(name)

    def view(self, name: str) -> memoryview:
        """Return one file's bytes."""
        return memoryview(self._spec) if name == SPEC_NAME else self._contents.view(name)

    def size_bytes(self, name: str) -> int:
        """Return the length of one file."""
        return len(self._spec) if name == SPEC_NAME else self._contents.size_bytes(name)

    def stamp(self, name: str) -> Stamp:
        """Return what the file system says of the bundle's own file."""
        return self._contents.stamp(name)


def upgrade_bundle(path: str | Path, out: str | Path | None = None, *, force: bool = False) -> Path | None:
    """Check a bundle and write it in the format of today, in one step; return where it is.

    Without `out` the bundle itself is rewritten. None says that it is in this format already, and nothing was written.
    Space id, variant ids, vectors and every other file stay as they are. Raises BundleError when the bundle cannot be
    used, InputError when `out` is there already or cannot be written.
    """
    bundle = open_bundle(path, use_memory=False)
    if read_format(b"".join(bundle.contents.chunks(SPEC_NAME))).number() >= (FORMAT_MAJOR, FORMAT_MINOR):
        return None
    raw = encode_spec(bundle.spec)
    target = Path(path).resolve() if out is None else Path(out)
    if out is None and target.is_dir():
        try:
            with replacing(target / SPEC_NAME) as temporary:
                temporary.write_bytes(raw)
        except OSError as error:
            raise not_written(target, error) from error
        return Path(path)
    contents = Upgraded(bundle.contents, raw)
    if out is None or target.suffix == ARCHIVE_SUFFIX:
        check_file(target, force=force or out is None)
        put_archive(contents, bundle.spec, target)
    else:
        check_folder(target, force=force)
        put_folder(contents, bundle.spec, target)
    return target
