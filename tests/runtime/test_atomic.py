from __future__ import annotations

from pathlib import Path

import pytest

from mmalign_runtime.atomic import replacing


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
