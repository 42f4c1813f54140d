"""A bundle, opened: its spec read and every file held to its hash, whether it is a folder or one .mmalign archive.

It is closed: a listed file must be inside it, whole, and be no link; nothing outside decides what a vector is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX, ArchiveContents, is_archive
from mmalign_runtime.bundle.contents import Contents, FileSource, FolderContents, Stamp
from mmalign_runtime.bundle.hashes import HashMemory, sha256_of
from mmalign_runtime.errors import BundleError, BundleFormatError, BundleIntegrityError
from mmalign_runtime.places import foreign
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, decode_spec

# A spec takes a few thousand bytes; what is larger by far would only fill the memory.
_MAX_SPEC_BYTES = 16 << 20


class Bundle(msgspec.Struct, frozen=True):
    """An opened bundle: where it is, its spec, and the way to its files."""

    path: Path
    spec: BundleSpec
    contents: Contents
    stamps: dict[str, Stamp]

    @property
    def space_id(self) -> str:
        """The id of the space that its vectors live in."""
        return self.spec.space_id

    def source(self, name: str) -> FileSource:
        """Return a file that the spec lists: its path in a folder, its bytes from an archive.

        Raises BundleIntegrityError for any other name.
        """
        self.check_unchanged(name)
        return self.contents.source(name)

    def view(self, name: str) -> memoryview:
        """Return the bytes of a file that the spec lists, mapped. Raises BundleIntegrityError for any other name."""
        self.check_unchanged(name)
        return self.contents.view(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file that the spec lists. Raises BundleIntegrityError for any other name."""
        self.check_unchanged(name)
        content = b"".join(self.contents.chunks(name))
        self.check_unchanged(name)
        return content

    def size_bytes(self) -> int:
        """Return the length of all listed files together."""
        return sum(map(self.contents.size_bytes, self.spec.files))

    def check_unchanged(self, name: str) -> None:
        """Raise BundleIntegrityError unless the file is listed, and the one that was there when the bundle was opened.

        A tower may be loaded hours later, and a redeployment in between puts another model's files in their place. A
        file that was merely touched or linked is held to its hash again.
        """
        if name not in self.spec.files:
            raise BundleIntegrityError(f"{self.path}: {name!r} is not among the files that {SPEC_NAME} lists.")
        if self.contents.stamp(name) != self.stamps[name] and sha256_of(self.contents, name) != self.spec.files[name]:
            raise BundleIntegrityError(f"{self.path / name} was replaced since the bundle was opened. Open it again.")


def open_bundle(path: str | Path, *, check_hashes: bool = True, use_memory: bool = True) -> Bundle:
    """Open a bundle's folder or archive and, by default, hold every file in it to its hash.

    With `use_memory`, a file whose size and times are those of an earlier check on this machine is not read again.

    Raises BundleError when there is no bundle at `path`, BundleFormatError when bundle.json cannot be trusted, and
    BundleIntegrityError, naming the file, when one is missing, changed, too many, or leaves the bundle.
    """
    contents = _contents(Path(path))
    if contents.size_bytes(SPEC_NAME) > _MAX_SPEC_BYTES:
        raise BundleIntegrityError(f"{path}: {SPEC_NAME} has over {_MAX_SPEC_BYTES} bytes. Do not use this bundle.")
    try:
        spec = decode_spec(b"".join(contents.chunks(SPEC_NAME)))
    except BundleFormatError as error:
        raise type(error)(f"{contents.path}: {error}") from error
    present = contents.names()
    if present is not None and (stray := sorted(present - spec.files.keys() - {SPEC_NAME})):
        raise BundleIntegrityError(
            f"{path} holds {stray[0]!r}, which {SPEC_NAME} does not list. Do not use this bundle."
        )
    memory = HashMemory(contents.path) if check_hashes and use_memory else None
    stamps = {name: contents.stamp(name) for name in spec.files}  # they are there, and inside
    for name, expected in sorted(spec.files.items()) if check_hashes else ():
        found = memory.sha256(contents, name) if memory else sha256_of(contents, name)
        if found != expected:
            raise BundleIntegrityError(
                f"{contents.path / name} was changed: its sha256 is {found[:12]}..., {SPEC_NAME} says "
                f"{expected[:12]}.... Copy the bundle again, or export it again."
            )
    if memory:
        memory.save()
    return Bundle(contents.path, spec, contents, stamps)


def _contents(path: Path) -> Contents:
    try:
        if path.is_file():
            if path.suffix != ARCHIVE_SUFFIX and not is_archive(path):
                raise _not_a_bundle(path, f"it is a file without {SPEC_NAME} inside")
            return ArchiveContents(path)
        if not path.exists():
            raise BundleError(f"{path}: {foreign(path) or 'there is no such file or folder. Check the path.'}")
        is_bundle = (path / SPEC_NAME).is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise BundleError(f"{path} cannot be opened: {error.strerror}. Check the path and its permissions.") from error
    if not is_bundle:
        raise _not_a_bundle(path, f"it has no {SPEC_NAME}")
    return FolderContents(path)


def is_bundle(path: Path) -> bool:
    """Say whether a path is that of a bundle, whole or not: a folder with bundle.json, or an archive of any suffix."""
    return path.suffix == ARCHIVE_SUFFIX or (path / SPEC_NAME).is_file() or (path.is_file() and is_archive(path))


def _not_a_bundle(path: Path, seen: str) -> BundleError:
    if path.name == SPEC_NAME:
        return BundleError(f"{path} is a file of a bundle. Name its folder, {path.parent}.")
    return BundleError(
        f"{path} is not a bundle: {seen}. A training run becomes one with `mmalign export RUN --out BUNDLE`, a model "
        "of another library with `mmalign import MODEL --out BUNDLE`."
    )
