"""A bundle as one file, and back: the same bytes of every file, so that the two are equal in every use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmalign_runtime.atomic import replacing
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX, write_archive
from mmalign_runtime.bundle.contents import Contents, Readable
from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, encode_spec, read_format
from mmalign_runtime.spec.bundle import FORMAT_MAJOR, FORMAT_MINOR
from mmalign_runtime.staging import put, staging


def pack_bundle(path: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Check a bundle and write it as one .mmalign file, in one step; return that file.

    Raises BundleError when the bundle cannot be used, InputError when `out` is there already or cannot be written.
    """
    target = Path(out)
    if target.suffix != ARCHIVE_SUFFIX:
        raise InputError(f"{target} ends in {target.suffix!r}, expected {ARCHIVE_SUFFIX}. Choose such a name.")
    check_file(target, force=force)
    bundle = open_bundle(path)
    put_archive(bundle.contents, bundle.spec, target)
    return target


def put_archive(contents: Readable, spec: BundleSpec, target: Path) -> None:
    """Write the files of a spec as one .mmalign file, in one step. Raises InputError."""
    try:
        with replacing(target) as temporary, temporary.open("w+b") as file:
            write_archive(contents, [SPEC_NAME, *sorted(spec.files)], file)
    except OSError as error:
        raise not_written(target, error) from error


def unpack_bundle(path: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Check a bundle and write its files to a folder, in one step; return that folder.

    With `force` an empty folder, or one that is a bundle, is replaced; anything else is not. Raises BundleError when
    the bundle cannot be used, InputError when `out` is there already or cannot be written.
    """
    target = Path(out)
    check_folder(target, force=force)
    bundle = open_bundle(path)
    put_folder(bundle.contents, bundle.spec, target)
    return target


def put_folder(contents: Readable, spec: BundleSpec, target: Path) -> None:
    """Write the files of a spec to a folder, in one step; an empty folder or a bundle there is replaced.

    Raises InputError.
    """
    try:
        with staging(target) as stage:
            for name in (SPEC_NAME, *spec.files):
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                with (stage / name).open("wb") as file:
                    file.writelines(contents.chunks(name))
            put(stage, target)
    except OSError as error:
        raise not_written(target, error) from error


def not_written(target: Path, error: OSError) -> InputError:
    """Return the error of a place that could not be written to."""
    return InputError(f"{target} cannot be written: {error}. Nothing was changed there.")


def check_file(target: Path, *, force: bool) -> None:
    """Raise InputError unless a file can be written at `target`."""
    _check_free(target, force=force)
    if target.is_dir():
        raise InputError(f"{target} is a folder, expected the name of a file. Choose another --out.")
    check_place(target)


def check_folder(target: Path, *, force: bool) -> None:
    """Raise InputError unless a bundle's folder can be written at `target`.

    Also for a file, and for a folder of something else, which a slip of the hand must not cost.
    """
    _check_free(target, force=force)
    is_there = target.exists()
    if is_there and (target.is_symlink() or not target.is_dir()):
        raise InputError(
            f"{target} is not a folder, expected one to replace. Choose another --out, or remove it first."
        )
    if is_there and any(target.iterdir()) and not (target / SPEC_NAME).is_file():
        raise InputError(f"{target} is a folder of something else: it has no {SPEC_NAME}. Choose another --out.")
    check_place(target)


def _check_free(target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise InputError(f"{target} is there already. Add --force to replace it, or choose another --out.")


class _Upgraded(msgspec.Struct, frozen=True):
    """The files of a bundle, with other bytes of bundle.json."""

    contents: Contents
    spec: bytes

    def chunks(self, name: str) -> Iterator[bytes]:
        return iter([self.spec]) if name == SPEC_NAME else self.contents.chunks(name)

    def size_bytes(self, name: str) -> int:
        return len(self.spec) if name == SPEC_NAME else self.contents.size_bytes(name)


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
    contents = _Upgraded(bundle.contents, raw)
    if out is None or target.suffix == ARCHIVE_SUFFIX:
        check_file(target, force=force or out is None)
        put_archive(contents, bundle.spec, target)
    else:
        check_folder(target, force=force)
        put_folder(contents, bundle.spec, target)
    return target
