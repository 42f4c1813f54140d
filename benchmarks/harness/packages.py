"""Packages of npm, PyPI and Debian 12, pinned: fetched by the registry's own client, held to their SHA-256, and read.

Nothing of them is kept in the repository but what is made of them. A rebuild starts from the same bytes or not at all.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import msgspec


class SourceError(Exception):
    """A package could not be fetched, is not the one that was recorded, or lacks a file."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release of one registry's package, and the hash of its archive."""

    registry: Literal["npm", "pypi", "debian"]
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Spell it as people look it up: `npm emojibase-data 17.0.0`."""
        return f"{self.registry} {self.name} {self.version}"


Row = TypeVar("Row")


def read_listed(path: Path, row: type[Row]) -> tuple[Row, ...]:
    """Return the rows of a .toml file of one table."""
    (rows,) = msgspec.toml.decode(path.read_bytes(), type=dict[str, tuple[row, ...]]).values()  # type: ignore[valid-type]
    return rows


class Archive(msgspec.Struct, frozen=True):
    """A fetched package (.whl, .tgz or .deb), read without unpacking it."""

    path: Path

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the package. Raises SourceError when it is not there."""
        return self.members(name)[name]

    def members(self, *wanted: str) -> dict[str, bytes]:
        """Return the files named, by name; a name that ends with a slash takes all that is below it.

        Raises SourceError when one is not there.
        """
        found = dict(self._read(wanted))
        missing = [name for name in wanted if not any(_is_wanted(other, (name,)) for other in found)]
        if missing:
            raise SourceError(f"{self.path.name} lacks {', '.join(missing)}.")
        return found

    def files(self, folder: str, pattern: str) -> dict[str, bytes]:
        """Return every file directly in `folder` whose name matches the glob `pattern`, by name."""
        found = self.members(f"{folder}/")
        paths = {name: PurePosixPath(name) for name in found}
        return {name: found[name] for name, path in paths.items() if str(path.parent) == folder and path.match(pattern)}

    def _read(self, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                yield from ((name, wheel.read(name)) for name in wheel.namelist() if _is_wanted(name, wanted))
            return
        with tarfile.open(fileobj=io.BytesIO(self._tarball())) as tarball:
            for member in tarball:
                name = member.name.removeprefix("./")
                content = tarball.extractfile(member) if _is_wanted(name, wanted) else None
                if content is not None:
                    yield name, content.read()

    def _tarball(self) -> bytes:
        if self.path.suffix != ".deb":
            return self.path.read_bytes()
        return subprocess.run(["dpkg-deb", "--fsys-tarfile", self.path], capture_output=True, check=True).stdout


def fetch(package: Package, cache_dir: Path) -> Archive:
    """Return the package's archive, asking the registry's client unless `cache_dir` holds it already.

    Raises SourceError when the client fails or the archive's hash is not the recorded one.
    """
    folder = cache_dir / f"{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        _download(package, folder)
    paths = sorted(folder.iterdir())
    if len(paths) != 1:
        raise SourceError(f"{folder} holds {len(paths)} files; expected one archive. Delete the folder.")
    with paths[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != package.sha256:
        raise SourceError(
            f"{package}: {paths[0].name} has SHA-256 {sha256}; expected {package.sha256}. "
            "Delete it and fetch again; if it still differs, the release is not the one recorded."
        )
    return Archive(paths[0])


def _is_wanted(name: str, wanted: tuple[str, ...]) -> bool:
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in wanted)


def _download(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    command, advice = {
        "npm": (["npm", "pack", f"{name}@{version}", "--silent"], "Check that npm is installed and online."),
        "pypi": (
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{name}=={version}"],
            "Check that pip is online.",
        ),
        "debian": (
            ["apt-get", "download", f"{name}={version}"],
            f"Run `apt-get update` on Debian 12 (bookworm), or put that version's .deb into {folder}.",
        ),
    }[package.registry]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise SourceError(f"{package} was not fetched: {said}. {advice}") from error
