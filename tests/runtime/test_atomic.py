from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mmalign_runtime.atomic import flush_folder, remove_leftovers, replacing


def test_the_file_appears_whole_and_alone(tmp_path: Path) -> None:
    with replacing(tmp_path / "new/file.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new/file.txt").exists()
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("file.txt", "whole")]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(RuntimeError, match="midway"), replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.txt", "old")]


def test_the_file_and_then_its_folder_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("whole")
    assert flushed == [False, True]
    flush_folder(tmp_path)
    assert flushed == [False, True, True]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("file.txt", ".hidden", "other.tmp"):
        (tmp_path / name).touch()
    gone = pytest.raises(FileNotFoundError, match="No such file")
    with gone, replacing(tmp_path / "file.txt", folder=tmp_path / "elsewhere") as temporary:
        assert temporary.parent == tmp_path / "elsewhere"
        temporary.rename(tmp_path / temporary.name)  # as if nobody had cleaned up
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "elsewhere", "file.txt", "other.tmp"]
