"""A bundle on disk: read its spec, check every file against its hash, name its paths.

The folder is closed: a listed file must be inside it, whole, and be no link; nothing outside decides what a vector is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import msgspec

from mmalign_runtime.errors import BundleError, BundleIntegrityError
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, decode_spec


class Bundle(msgspec.Struct, frozen=True):
    """An opened bundle: its folder and its spec."""

    path: Path
    spec: BundleSpec

    def file(self, name: str) -> Path:
        """Return the path of a file that the spec lists. Raises BundleIntegrityError for any other name."""
        if name not in self.spec.files:
            raise BundleIntegrityError(f"{self.path}: {name!r} is not among the files that {SPEC_NAME} lists.")
        return self.path / name


def open_bundle(path: str | Path, *, check_hashes: bool = True) -> Bundle:
    """Open a bundle's folder and, by default, hash every file in it.

    Raises BundleError when there is no bundle at `path`, BundleFormatError when bundle.json cannot be trusted, and
    BundleIntegrityError, naming the file, when one is missing, changed, or leaves the folder.
    """
    folder = Path(path)
    spec_path = folder / SPEC_NAME
    if not spec_path.is_file():
        raise BundleError(
            f"{folder} is no bundle: it has no {SPEC_NAME}. Make one with `mmalign export RUN --out {folder}`."
        )
    bundle = Bundle(folder, decode_spec(spec_path.read_bytes()))
    for name, expected in sorted(bundle.spec.files.items()):
        _check_file(folder, name, expected if check_hashes else None)
    return bundle


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(folder: Path, name: str, expected: str | None) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise BundleIntegrityError(f"{folder}: the listed file {name!r} leaves the bundle. Do not use this bundle.")
    path = folder / name
    if path.resolve() != folder.resolve() / parts:  # the file, or a folder above it inside the bundle, is a link
        raise BundleIntegrityError(f"{path} is a link; a bundle holds its files itself. Copy the file in its place.")
    if not path.is_file():
        raise BundleIntegrityError(f"{path} is missing. Copy the whole bundle again, or export it again.")
    if expected is not None and (found := sha256_of(path)) != expected:
        raise BundleIntegrityError(
            f"{path} was changed: its sha256 is {found[:12]}..., {SPEC_NAME} says {expected[:12]}.... "
            "Copy the bundle again, or export it again."
        )
