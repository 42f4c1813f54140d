"""A folder that is whole or not there: written beside its place, then put there in one step.

A process that is killed leaves the folder it was writing, locked no more; the next one for the same place removes it.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from mmalign_export.errors import ExportError
from mmalign_export.exchange import exchange
from mmalign_runtime.addresses import foreign
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.spec import SPEC_NAME

_STAGED = ".staged"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder beside `out` that takes its place when the block ends well, and is removed when it does not.

    Where `out` is a .mmalign file, the folder is packed into it. Raises ExportError when `out` is there already and
    `force` is not set, when it is something else than a bundle, or the disk is full.
    """
    check_free(out, force=force)
    with _errors_named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        stage = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=_STAGED))
        try:
            stage.chmod(0o755)
            with _locked(stage):
                yield stage
                if not force:
                    check_free(out, force=False)  # another process may have put a bundle there meanwhile
                if out.suffix == ARCHIVE_SUFFIX:
                    pack_bundle(stage, out, force=True)
                else:
                    _replace(stage, out)
        finally:
            _remove(stage)


def check_free(out: Path, *, force: bool) -> None:
    """Raise ExportError when `out` is there and `force` is not set, or when it is something else than a bundle.

    And when it is a URL, of which a folder would be made here.
    """
    if foreign(out):
        raise ExportError(f"{out} is not a path on this machine. Write to one, and copy the result from there.")
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists already. Add --force to replace it, or choose another --out.")
    # A slip of the hand, --out . or --out ~, must not cost what somebody else wrote.
    if out.is_dir() and any(out.iterdir()) and not (out / SPEC_NAME).is_file():
        raise ExportError(f"{out} is a folder of something else: it has no {SPEC_NAME}. Choose another --out.")
    if out.is_dir() == (out.suffix == ARCHIVE_SUFFIX):
        kind = "folder" if out.is_dir() else "file"
        fix = "a new folder" if out.is_file() else "another name"
        raise ExportError(
            f"{out} is a {kind}, and the bundle would be written as the other kind. Choose an --out that ends in "
            f"{ARCHIVE_SUFFIX}, or {fix}."
        )


@contextmanager
def _errors_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "Make room" if error.errno in _NO_ROOM else "Check the path and its permissions"
        reason = f"{out} cannot be written: {error.strerror}. What was there is as it was. {fix}, then export again."
        raise ExportError(reason) from error


def _replace(stage: Path, out: Path) -> None:
    """Put the stage in place of what is there.

    An old folder is swapped for the new one, so that one of the two is at `out` at every moment. Where the system
    cannot swap, the old one is moved aside first: a kill between the two renames leaves it whole, but beside `out`.
    """
    if not out.exists():
        stage.rename(out)
        return
    if exchange(stage, out):
        return  # the old folder lies at `stage` now, and is removed with it
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(aside / out.name)
    stage.rename(out)
    shutil.rmtree(aside)


def _remove_leftovers(out: Path) -> None:
    """Remove what killed processes were writing for `out`; what is locked is being written now."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*{_STAGED}"):
        with _locked(path) as is_ours:
            if is_ours:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():  # what was at `out` need not have been a folder
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while the block runs, and say whether that was possible. A killed process holds no lock."""
    if os.name == "nt":  # folders cannot be locked there, so nothing is known to be left over
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_ours = lock_descriptor(descriptor, blocking=False)
    except OSError:  # the file system has no locks: nothing is known to be left over
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(descriptor)
