import os
from pathlib import Path

import pytest

from mmalign_runtime.bundle import hashes
from mmalign_runtime.bundle.contents import FolderContents
from mmalign_runtime.bundle.hashes import HashMemory, cache_dir, sha256_of, sha256_of_file

NAME = "weights.bin"
LONG_AGO = (1_600_000_000, 1_600_000_000)


@pytest.fixture
def contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderContents:
    """A folder with one file that counts as written long ago."""
    (tmp_path / NAME).write_bytes(b"weights")
    monkeypatch.setattr(hashes, "_SETTLED_NS", 0)
    return FolderContents(tmp_path)


def hashed(contents: FolderContents, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Return the file's hash as the memory gives it, and how often a file was read for it."""
    calls: list[str] = []

    def count(contents: FolderContents, name: str) -> str:
        calls.append(name)
        return sha256_of(contents, name)

    monkeypatch.setattr(hashes, "sha256_of", count)
    memory = HashMemory(contents.path)
    found = memory.sha256(contents, NAME)
    memory.save()
    return found, len(calls)


def test_an_untouched_file_is_read_once(contents: FolderContents, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sha256_of_file(contents.path / NAME)
    assert hashed(contents, monkeypatch) == (expected, 1)
    assert hashed(contents, monkeypatch) == (expected, 0)


def test_a_changed_file_is_read_again_though_size_and_date_are_set_back(
    contents: FolderContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = contents.path / NAME
    os.utime(path, LONG_AGO)
    hashed(contents, monkeypatch)
    path.write_bytes(b"WEIGHTS")
    os.utime(path, LONG_AGO)
    assert hashed(contents, monkeypatch) == (sha256_of_file(path), 1)


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).write_bytes(b"weights")
    contents = FolderContents(tmp_path)
    assert [hashed(contents, monkeypatch)[1] for _ in range(2)] == [1, 1]


def test_a_damaged_memory_is_an_empty_one(contents: FolderContents, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed(contents, monkeypatch)
    for path in (cache_dir() / "hashes").iterdir():
        path.write_bytes(b"{")
    assert hashed(contents, monkeypatch)[1] == 1


def test_without_a_place_to_remember_every_load_hashes(
    contents: FolderContents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert [hashed(contents, monkeypatch)[1] for _ in range(2)] == [1, 1]


def test_without_a_home_every_load_hashes(contents: FolderContents, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert [hashed(contents, monkeypatch)[1] for _ in range(2)] == [1, 1]
