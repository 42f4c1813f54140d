"""Where a bundle may be written, and its folder or file put there in one step when all of it is proven."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign_export.errors import ExportError
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place
from mmalign_runtime.spec import SPEC_NAME
from mmalign_runtime.staging import put, staging

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder beside `out` that takes its place when the block ends well, and is removed when it does not.

    Where `out` is a .mmalign file, the folder is packed into it. Raises ExportError when `out` is there already and
    `force` is not set, when it is something else than a bundle, or the disk is full.
    """
    check_free(out, force=force)
    with _errors_named(out), staging(out) as stage:
        yield stage
        if not force:
            check_free(out, force=False)  # another process may have put a bundle there meanwhile
        if out.suffix == ARCHIVE_SUFFIX:
            pack_bundle(stage, out, force=True)
        else:
            put(stage, out)


def check_free(out: Path, *, force: bool) -> None:
    """Raise ExportError when `out` is there and `force` is not set, or when it is something else than a bundle.

    And when nothing can be written there, which is found out before any work is done.
    """
    try:
        check_place(out)
    except InputError as error:
        raise ExportError(str(error)) from error
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
