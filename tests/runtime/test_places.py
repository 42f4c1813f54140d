import tempfile
from pathlib import Path

import pytest

from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place


def test_a_place_is_looked_at_and_nothing_is_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "vectors")
    check_place(tmp_path / "no/such/folder/vectors.parquet")
    monkeypatch.chdir(tmp_path)
    check_place(Path("vectors"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/vectors", "file/deep/vectors", "broken/vectors"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"(file|broken) is not a folder, so vectors cannot be written to it"):
        check_place(tmp_path / name)


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        assert dir == tmp_path
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"vectors\.npz cannot be written: Read-only file system"):
        check_place(tmp_path / "no/vectors.npz")


@pytest.mark.parametrize("path", ["s3://bucket/vectors", "gs://bucket/v.npz", "https://example.org/v.parquet"])
def test_a_url_does_not_become_a_folder(path: str) -> None:
    with pytest.raises(InputError, match="is not a path on this machine"):
        check_place(Path(path))


def test_a_name_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        check_place(tmp_path / ("v" * 300) / "vectors")
