"""Places that take no file: found out before any work is done. Sources are read where nothing can be written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmalign_export.errors import ExportError
from mmalign_export.sources import read_source
from mmalign_export.staging import check_free
from tests.export.sources.tiny import save_tiny


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Return a function that copies a folder to a disk that is read-only from then on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a read-only file system needs Linux and the right to mount one")

    def copied(folder: Path) -> Path:
        place = shutil.copytree(folder, disk / "copy")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return place

    yield copied
    subprocess.run(["umount", str(disk)], check=True)


def test_a_source_is_read_where_nothing_can_be_written_and_an_output_is_refused_there(
    read_only: Callable[[Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    place = read_only(save_tiny("clip", tmp_path / "clip"))
    assert read_source("transformers", place).model.embed_dim == 24
    for name in ("bundle", "deep/bundle.mmalign"):
        with pytest.raises(ExportError, match=rf"{name} cannot be written: Read-only file system\. Choose another"):
            check_free(place.parent / name, force=True)
