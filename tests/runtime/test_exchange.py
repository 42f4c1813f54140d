from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmalign_runtime.staging import exchange


def make_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's own")
def test_two_folders_that_are_not_empty_swap_places(tmp_path: Path) -> None:
    old, new = make_folder(tmp_path / "old", "old"), make_folder(tmp_path / "new", "new")
    assert exchange(old, new)
    assert (old / "file").read_text() == "new"
    assert (new / "file").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's own")
def test_what_is_not_there_cannot_be_swapped(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        exchange(make_folder(tmp_path / "old", "old"), tmp_path / "missing")


def test_elsewhere_nothing_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make_folder(tmp_path / "old", "old"), make_folder(tmp_path / "new", "new")
    monkeypatch.setattr("sys.platform", "darwin")
    assert not exchange(old, new)
    assert (old / "file").read_text() == "old"
