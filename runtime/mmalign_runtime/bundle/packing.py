"""A bundle as one file, and back: the same bytes of every file, so that the two are equal in every use."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mmalign_runtime.atomic import replacing
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX, write_archive
from mmalign_runtime.errors import InputError
from mmalign_runtime.spec import SPEC_NAME


def pack_bundle(path: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Check a bundle and write it as one .mmalign file, in one step; return that file.

    Raises BundleError when the bundle cannot be used, InputError when `out` is there already or cannot be written.
    """
    target = Path(out)
    if target.suffix != ARCHIVE_SUFFIX:
        raise InputError(f"{target} ends in {target.suffix!r}, expected {ARCHIVE_SUFFIX}. Choose such a name.")
    _check_free(target, force=force)
    bundle = open_bundle(path)
    names = [SPEC_NAME, *sorted(bundle.spec.files)]
    try:
        with replacing(target) as temporary, temporary.open("w+b") as file:
            write_archive(bundle.contents, names, file)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}. Nothing was changed there.") from error
    return target


def unpack_bundle(path: str | Path, out: str | Path) -> Path:
    """Check a bundle and write its files to a new folder, in one step; return that folder.

    Raises BundleError when the bundle cannot be used, InputError when `out` is there already or cannot be written.
    """
    target = Path(out)
    _check_free(target, force=False)
    bundle = open_bundle(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            for name in (SPEC_NAME, *bundle.spec.files):
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                with (stage / name).open("wb") as file:
                    file.writelines(bundle.contents.chunks(name))
            stage.chmod(0o755)
            stage.rename(target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}. Nothing was changed there.") from error
    return target


def _check_free(target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise InputError(f"{target} is there already. Choose another name, or remove it first.")
