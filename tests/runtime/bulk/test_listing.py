import os
from pathlib import Path

import pytest

from mmalign_runtime.bulk.listing import LeftOut, matching, readable, walk
from mmalign_runtime.errors import InputError

NAMES = ("a.jpg", "a/x.jpg", "a/b/y.jpg", "a/b/z.png", "a-b/x.jpg", "b.jpg", ".hidden/c.jpg", "a/[1].jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_come_in_the_order_of_sorted_paths(folder: Path) -> None:
    expected = sorted(path for path in folder.rglob("*") if path.is_file())
    assert list(walk(f"{folder}/")) == [str(path) for path in expected]


@pytest.mark.parametrize(
    "pattern", ["*.jpg", "**/*.jpg", "a/**/*.png", "*/x.jpg", "a/b/?.*", "**/b/*", "[ab].jpg", "no/*"]
)
def test_a_pattern_names_what_pathlib_finds(folder: Path, pattern: str) -> None:
    expected = sorted(path for path in folder.glob(pattern) if path.is_file())
    assert list(matching(folder / pattern)) == [str(path) for path in expected]


def test_a_relative_pattern_gives_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert list(matching(Path("a/**/*.png"))) == ["a/b/z.png"]
    assert next(walk("")) == ".hidden/c.jpg"


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "a/b/loop").symlink_to(folder, target_is_directory=True)
    assert len(list(walk(f"{folder}/"))) == len(NAMES)


@pytest.mark.parametrize("pattern", ["**/*.jpg", "*/*.jpg"])
def test_a_pattern_names_the_folder_it_cannot_read(folder: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a-b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"a-b cannot be read: Permission denied"):
        list(matching(folder / pattern))


def test_what_cannot_be_read_is_named() -> None:
    with (
        pytest.raises(InputError, match=r"list\.txt cannot be read: Input/output error\. Check"),
        readable(Path("list.txt")),
    ):
        raise OSError(5, "Input/output error")


def test_a_link_that_leads_back_to_itself_is_listed_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert list(walk(f"{tmp_path}/")) == [f"{tmp_path}/loop.jpg"]


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    """A folder as macOS, caches and links leave it."""
    for name in ("a.jpg", "._a.jpg", ".DS_Store", ".cache/b.jpg", "deep/._c.jpg", "deep/c.jpg", "deep/.d/e.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/f.jpg").touch()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "in/deep/circle").symlink_to(tmp_path / "in", target_is_directory=True)
    return tmp_path / "in"


def found(paths: object, folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in paths]  # type: ignore[attr-defined]


def test_hidden_names_and_circles_are_left_out_and_counted(littered: Path) -> None:
    left_out = LeftOut()
    assert found(walk(f"{littered}/", left_out), littered) == ["a.jpg", "deep/c.jpg", "linked/f.jpg"]
    hidden, linked = left_out.remarks()
    assert hidden.startswith(f"hidden files or folders left out: 5 (the first: {littered}/.DS_Store); name them in")
    assert linked.endswith(f"lead in a circle, left out: 1 (the first: {littered}/deep/circle)")


def test_a_linked_folder_is_read_once_and_never_in_a_circle(tmp_path: Path) -> None:
    for name in ("in/z/a.jpg", "out/b.jpg", "out/below/c.jpg", "outer/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (
        ("in/a", "in/z"),  # read anyway, under its own name
        ("in/b", "out"),
        ("in/c", "out/below"),  # read by way of the one before
        ("in/d", "."),  # holds what is read
        ("in/e", "outer"),
        ("out/back", "in"),
        ("outer/self", "outer"),
    ):
        (tmp_path / link).symlink_to(tmp_path / target, target_is_directory=True)
    left_out = LeftOut()
    assert found(walk(f"{tmp_path}/in/", left_out), tmp_path / "in") == [
        "b/b.jpg",
        "b/below/c.jpg",
        "e/d.jpg",
        "z/a.jpg",
    ]
    assert "left out: 5 (the first: " in left_out.remarks()[0]


@pytest.mark.parametrize(
    ("pattern", "expected", "num_remarks"),
    [
        ("*.jpg", ["a.jpg"], 1),
        ("**/*.jpg", ["a.jpg", "deep/c.jpg", "linked/f.jpg"], 2),
        ("*/*.jpg", ["deep/c.jpg", "linked/f.jpg"], 1),
        ("linked/*.jpg", ["linked/f.jpg"], 0),
        ("._*", ["._a.jpg"], 0),
        (".cache/*", [".cache/b.jpg"], 0),
        (".cache/**", [".cache/b.jpg"], 0),
        ("**/._*.jpg", ["._a.jpg", "deep/._c.jpg"], 0),
        ("**/.d/*", ["deep/.d/e.jpg"], 0),
        ("._a.jpg", ["._a.jpg"], 0),
    ],
)
def test_a_pattern_takes_what_is_hidden_where_it_names_it(
    littered: Path, pattern: str, expected: list[str], num_remarks: int
) -> None:
    left_out = LeftOut()
    assert found(matching(littered / pattern, left_out), littered) == expected
    assert len(left_out.remarks()) == num_remarks


def test_a_hidden_folder_that_cannot_be_read_stops_nothing(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == ".cache":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(walk(f"{littered}/", LeftOut()), littered) == ["a.jpg", "deep/c.jpg", "linked/f.jpg"]
