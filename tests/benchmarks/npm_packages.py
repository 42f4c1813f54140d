"""Packages as npm gives them, written for a test."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from benchmarks.harness.packages import Archive


def npm_archive(folder: Path, files: dict[str, object]) -> Archive:
    """Write a package of JSON files, by their names."""
    path = folder / "package.tgz"
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in files.items():
            encoded = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(encoded)
            tarball.addfile(member, io.BytesIO(encoded))
    return Archive(path)
