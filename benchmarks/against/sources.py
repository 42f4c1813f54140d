"""The Debian packages whose photographs and prose the sets are made of: fetched once by apt, held to their hashes.

Nothing of them is kept in the repository. Their licences (CC BY, CC BY-SA, GPL) are in each package's copyright file.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Collection
from pathlib import Path

import msgspec


class SourceError(RuntimeError):
    """A package is not there, or is not the one that the sets are made of."""


class Package(msgspec.Struct, frozen=True):
    """One version of one Debian package."""

    name: str
    version: str
    sha256: str


LOMIRI_16 = Package(
    "lomiri-wallpapers-16.04", "20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"
)
LOMIRI_20 = Package(
    "lomiri-wallpapers-20.04", "20.04.0-2", "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709"
)
MATE = Package("mate-backgrounds", "1.26.0-1", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04")
PLASMA = Package(
    "plasma-workspace-wallpapers", "4:5.27.5-2", "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b"
)
DEBIAN_FAQ = Package("debian-faq", "11.1", "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0")
DEBIAN_REFERENCE = Package(
    "debian-reference-en", "2.100", "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f"
)


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's file in `folder`, downloaded by apt when it is not there yet.

    Raises SourceError when it cannot be fetched, or is another file than the sets are made of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _downloaded(package, folder)
    if found is None:
        _download(package, folder)
        found = _downloaded(package, folder)
    if found is None:
        raise SourceError(f"apt-get said yes, but {folder} holds no {package.name}_*.deb.")
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise SourceError(f"{found.name} has sha256 {digest}, expected {package.sha256}. Delete it and run again.")
    return found


def read_members(package_file: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the files named, by name; names begin with `usr/`. A folder's name takes all in it.

    Raises SourceError when one is not there.
    """
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package_file], capture_output=True, check=True).stdout
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            file = archive.extractfile(member) if member.isfile() and _is_wanted(name, wanted) else None
            if file is not None:
                found[name] = file.read()
    missing = [name for name in wanted if not any(_is_wanted(other, [name]) for other in found)]
    if missing:
        raise SourceError(f"{package_file.name} lacks {', '.join(missing)}.")
    return found


def _is_wanted(name: str, wanted: Collection[str]) -> bool:
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in wanted)


def _downloaded(package: Package, folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob(f"{package.name}_*.deb"))), None)


def _download(package: Package, folder: Path) -> None:
    asked = f"{package.name}={package.version}"
    try:
        subprocess.run(["apt-get", "download", asked], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise SourceError(
            f"`apt-get download {asked}` failed: {said}. Run `apt-get update` on Debian 12 (bookworm), or put that "
            f"version's .deb into {folder}."
        ) from error
