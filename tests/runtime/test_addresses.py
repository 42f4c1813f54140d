from pathlib import Path

import pytest

from mmalign_runtime.places import foreign


@pytest.mark.parametrize("name", ["https:/dog.jpg", "data:image/png;base64,aa", "R0lGODlhAQABAAAAACH5BAEKAAEA"])
def test_what_exists_is_a_path_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert foreign(tmp_path / name) is not None
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert foreign(tmp_path / name) is None
    monkeypatch.chdir(tmp_path)
    assert foreign(name) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "dog.jpg",
        "C:/photos/dog.jpg",
        "notes:/dog.jpg",
        "metadata:x/dog.jpg",
        "/home/user/projects/datasets/imagenet/train/photos2024/vacation/italy",
        "photos/https/dog.jpg",
        "Qk0/dog.jpg",
        "a\0b",
    ],
)
def test_a_missing_file_is_not_called_something_else(path: str) -> None:
    assert foreign(path) is None
    assert foreign(Path(path)) is None
