import os
from pathlib import Path

import pytest

from mmalign_runtime.bulk.entries import Source
from mmalign_runtime.bulk.sources import open_source
from mmalign_runtime.errors import InputError
from mmalign_runtime.spec import Modality

NO_PYARROW = "Parquet needs pyarrow, the extra mmalign-runtime[parquet]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep" / "one.txt").write_text("a dog\n")
    (tmp_path / "two.txt").write_text("\ufeffdeux\nchiens\n")
    return tmp_path


def entries(source: Source) -> list[tuple[str, object]]:
    found = [(entry.id, entry.item) for entry in source]
    assert len(found) == len(source)
    return found


def test_a_folder_gives_its_images_and_those_below_it(folder: Path) -> None:
    names = ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert entries(open_source(folder, "image")) == [(name, folder / name) for name in names]


def test_a_folder_of_text_files_gives_what_they_hold(folder: Path) -> None:
    assert entries(open_source(folder, "text")) == [("deep/one.txt", "a dog"), ("two.txt", "deux\nchiens")]


def test_text_files_are_read_when_their_turn_comes(folder: Path) -> None:
    source = iter(open_source(folder, "text"))
    next(source)
    (folder / "two.txt").write_text("changed")
    assert next(source).item == "changed"


def test_bytes_that_are_not_utf8_are_kept_as_lone_surrogates(folder: Path) -> None:
    (folder / "two.txt").write_bytes(b"caf\xe9")
    assert entries(open_source(folder, "text"))[1] == ("two.txt", "caf\udce9")


def test_a_glob_gives_what_matches_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entries(open_source(folder / "*.jpg", "image")) == [((folder / "b.jpg").as_posix(), folder / "b.jpg")]
    monkeypatch.chdir(folder)
    assert [name for name, _ in entries(open_source("**/*.[jw]*", "image"))] == ["b.jpg", "deep/er/c.webp"]


def test_one_image_is_a_source_of_one(folder: Path) -> None:
    assert entries(open_source(folder / "b.jpg", "image")) == [("b.jpg", folder / "b.jpg")]


def test_a_list_of_texts_is_numbered_and_keeps_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("a dog\r\n\n猫".encode())
    assert entries(open_source(path, "text")) == [("0", "a dog"), ("1", ""), ("2", "猫")]


def test_a_list_of_images_is_relative_to_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "images.txt"
    path.write_text("photos/a.jpg\n\n/data/b.jpg\n")
    expected = [("photos/a.jpg", tmp_path / "photos/a.jpg"), ("/data/b.jpg", Path("/data/b.jpg"))]
    assert entries(open_source(path, "image")) == expected


def test_a_file_name_that_is_no_text_gets_an_id_that_is(tmp_path: Path) -> None:
    path = tmp_path / "images.txt"
    path.write_bytes(b"caf\xe9.jpg\n")
    assert entries(open_source(path, "image")) == [("caf\\xe9.jpg", tmp_path / "caf\udce9.jpg")]


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("missing", "image", "there is no such file or folder"),
        ("*.gif", "image", "holds no image files"),
        ("deep/er", "text", "It holds 1 image files: add `--kind image`"),
        ("notes.md", "image", r"ends in '\.md', expected a folder"),
        ("b.jpg", "text", r"ends in '\.jpg', expected a folder"),
    ],
)
def test_nothing_to_read_is_an_input_error(folder: Path, name: str, kind: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_source(folder / name, kind)  # type: ignore[arg-type]


def test_an_empty_list_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").touch()
    with pytest.raises(InputError, match="is empty, expected one text a line"):
        open_source(tmp_path / "texts.txt", "text")


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="deep cannot be read: Permission denied"):
        open_source(folder, "image")


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a dog")

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"texts\.txt cannot be read: Permission denied"):
        open_source(path, "text")


def test_a_column_of_something_that_has_none_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.parquet file, so it has no columns"):
        open_source(folder, "image", column="image")


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_source_can_begin_later_without_reading_what_comes_before(folder: Path, start: int) -> None:
    listed = folder / "texts.txt"
    listed.write_text("a\nb\nc\n")
    for source in (open_source(folder, "image"), open_source(listed, "text")):
        assert list(source.entries(start)) == list(source)[start:]


def test_a_text_file_that_is_gone_is_a_problem_of_its_own(folder: Path) -> None:
    source = open_source(folder, "text")
    listing = iter(source)
    next(listing)
    (folder / "two.txt").unlink()
    entry = next(listing)
    assert (entry.id, entry.item, entry.problem) == (
        "two.txt",
        folder / "two.txt",
        "No such file or directory; expected a readable file.",
    )


@pytest.mark.parametrize(("name", "kind"), [(".", "image"), ("**/*.txt", "text"), ("list.txt", "text")])
def test_the_fingerprint_changes_with_the_items(folder: Path, name: str, kind: Modality) -> None:
    (folder / "list.txt").write_text("a\nb")
    before = open_source(folder / name, kind).fingerprint()
    assert open_source(folder / name, kind).fingerprint() == before
    (folder / "list.txt").write_text("a\nc")
    (folder / "z.jpg").touch()
    (folder / "z.txt").touch()
    assert open_source(folder / name, kind).fingerprint() != before


def parquet(folder: Path, **columns: object) -> Path:
    pa = pytest.importorskip("pyarrow", reason=NO_PYARROW)
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / "table.parquet", row_group_size=2)
    return folder / "table.parquet"


def test_the_only_column_that_fits_is_taken_and_rows_are_numbered(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=["a", "b", "c"], size=[1, 2, 3])
    assert entries(open_source(path, "text")) == [("0", "a"), ("1", "b"), ("2", "c")]


def test_columns_of_values_and_ids_can_be_named(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=["a", "b", None], other=["c", "d", "e"], key=[7, 8, 8])
    found = entries(open_source(path, "text", column="text", id_column="key"))
    assert found == [("7", "a"), ("8", "b"), ("8", None)]


def test_an_id_column_with_an_empty_row_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=["a", "b"], key=["x", None])
    with pytest.raises(InputError, match=r"column 'key', row 1 \(from 0\) is empty"):
        entries(open_source(path, "text", column="text", id_column="key"))


def test_images_come_as_bytes_or_as_paths_relative_to_the_table(tmp_path: Path) -> None:
    path = parquet(tmp_path, image=[b"x", b"y"], file=["a.jpg", "/data/b.jpg"])
    assert [item for _, item in entries(open_source(path, "image", column="image"))] == [b"x", b"y"]
    expected = [tmp_path / "a.jpg", Path("/data/b.jpg")]
    assert [item for _, item in entries(open_source(path, "image", column="file"))] == expected


def test_more_rows_than_one_reading_are_numbered_through(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=[str(number) for number in range(200)])
    assert all(name == item for name, item in entries(open_source(path, "text")))


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("text", {}, "columns that could hold texts: 'a', 'b'. Name one with --column"),
        ("text", {"column": "size"}, "column 'size' is int64, expected texts"),
        ("text", {"column": "bb"}, "no column 'bb'; it has 'a', 'b', 'size'. Did you mean 'b'"),
        ("image", {"column": "a", "id_column": "key"}, "no column 'key'"),
    ],
)
def test_a_wrong_column_is_an_input_error(tmp_path: Path, kind: str, options: dict[str, str], reason: str) -> None:
    path = parquet(tmp_path, a=["x"], b=["y"], size=[1])
    with pytest.raises(InputError, match=reason):
        open_source(path, kind, **options)  # type: ignore[arg-type]


def test_a_folder_of_tables_is_one_table(tmp_path: Path) -> None:
    for name, texts in (("b", ["c"]), ("a", ["a", "b"]), ("deep", [])):
        parquet(tmp_path, text=texts if texts else ["d"]).rename(tmp_path / f"{name}.parquet")
    expected = [("0", "a"), ("1", "b"), ("2", "c"), ("3", "d")]
    assert entries(open_source(tmp_path, "text")) == expected
    assert entries(open_source(tmp_path / "*.parquet", "text", column="text")) == expected


@pytest.mark.parametrize("start", range(8))
def test_rows_can_begin_later_without_reading_groups_before(tmp_path: Path, start: int) -> None:
    for name, texts in (("a", ["a", "b", "c", "d", "e"]), ("b", ["f", "g"])):
        parquet(tmp_path, text=texts).rename(tmp_path / f"{name}.parquet")
    source = open_source(tmp_path, "text")
    assert list(source.entries(start)) == list(source)[start:]


def test_a_table_of_another_shape_is_named(tmp_path: Path) -> None:
    parquet(tmp_path, text=["a"]).rename(tmp_path / "a.parquet")
    parquet(tmp_path, words=["b"]).rename(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet has no column 'text'; it has 'words'"):
        open_source(tmp_path, "text")


def test_the_fingerprint_of_a_table_sees_its_values(tmp_path: Path) -> None:
    prints = {open_source(parquet(tmp_path, text=texts), "text").fingerprint() for texts in (["a", "b"], ["a", "c"])}
    assert len(prints) == 2


def test_what_lies_in_a_folder_and_is_not_embedded_is_remarked(folder: Path) -> None:
    (folder / "._b.jpg").touch()
    (folder / ".text.parquet").touch()
    source = open_source(folder, "image")
    assert [entry.id for entry in source] == ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert [remark.split(" (")[0] for remark in source.remarks] == ["hidden files or folders left out: 2"]
    assert open_source(folder / "two.txt", "text").remarks == ()


def test_a_folder_with_nothing_but_hidden_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "._b.jpg").touch()
    with pytest.raises(InputError, match=r"holds no image files .*\. hidden files or folders left out: 1 "):
        open_source(tmp_path, "image")


def test_a_table_beside_its_appledouble_is_read(tmp_path: Path) -> None:
    parquet(tmp_path, text=["a"])
    (tmp_path / "._table.parquet").write_bytes(b"\0\5\x16\7")
    source = open_source(tmp_path, "text")
    assert ([entry.item for entry in source], len(source.remarks)) == (["a"], 1)


@pytest.mark.parametrize("name", ["https://example.org/photos", "s3://bucket/photos/*.jpg", "data:image/png;base64,aa"])
def test_an_input_that_is_not_a_path_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"this is a (data )?URL, expected a path"):
        open_source(name, "image")


def test_an_input_with_a_name_too_long_for_the_system_is_named() -> None:
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        open_source("d" * 300 + ".jpg", "image")
