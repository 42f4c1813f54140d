"""Folders and shards as they come: each image is a pair, a rejected row, or counted in a line of the log."""

import io
import logging
import os
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmalign.data import (
    ColumnError,
    DataError,
    DataSource,
    Pair,
    RejectedRow,
    SourceFormatError,
    SourceNotFoundError,
    iter_pairs,
    read_pairs,
)

IMAGE = b"\xff\xd8\xff an image"  # nothing is decoded here
CAPTION = b"a cat"


class Odd(msgspec.Struct, frozen=True):
    """Files by name (a link where the content is a path), and what becomes of them.

    `pairs` are images with their captions, `left` the rejected names with their reasons, and `logged` is in the log.
    """

    files: dict[str, bytes | Path]
    pairs: dict[str, tuple[str, ...]] = {}
    left: dict[str, str] = {}
    logged: str = ""


CAT = {"cat.jpg": IMAGE, "cat.txt": CAPTION}
READ = {"cat.jpg": ("a cat",)}


def captions(content: bytes, *texts: str) -> Odd:
    return Odd({"cat.jpg": IMAGE, "cat.txt": content}, {"cat.jpg": texts})


FOLDERS = {
    "line ends of all kinds": captions(b"one\r\ntwo\rthree\nfour", "one", "two", "three", "four"),
    "no phantom at the end": captions(b"one\n\n \r\n", "one"),
    "separators of Unicode within a caption": captions(
        "one\u2028two\x0cthree\x85four\x1cfive\n".encode(), "one\u2028two\x0cthree\x85four\x1cfive"
    ),
    "UTF-8 with a mark": captions("chat é".encode("utf-8-sig"), "chat é"),
    "UTF-16 with a mark": captions("chat é\n猫".encode("utf-16"), "chat é", "猫"),
    "UTF-32 with a mark": captions("chat é".encode("utf-32"), "chat é"),
    "UTF-16 without a mark": Odd(
        {"cat.jpg": IMAGE, "cat.txt": "chat".encode("utf-16-le")}, left={"cat.jpg": "holds NUL characters"}
    ),
    "Windows-1252": Odd(
        {"cat.jpg": IMAGE, "cat.txt": "café".encode("cp1252")}, left={"cat.jpg": "0xe9 is 'é' in Windows-1252"}
    ),
    "half a character of UTF-16": Odd(
        {"cat.jpg": IMAGE, "cat.txt": "chat".encode("utf-16")[:-1]}, left={"cat.jpg": "captions are not UTF-8"}
    ),
    "suffixes in capitals": Odd({"cat.JPG": IMAGE, "cat.TXT": CAPTION}, {"cat.JPG": ("a cat",)}),
    "suffixes of all formats": Odd(
        {f"cat{at}{suffix}": IMAGE for at, suffix in enumerate([".jfif", ".jpe", ".ppm", ".jp2", ".heic"])}
        | {f"cat{at}.txt": CAPTION for at in range(5)},
        {f"cat{at}{suffix}": ("a cat",) for at, suffix in enumerate([".jfif", ".jpe", ".ppm", ".jp2", ".heic"])},
    ),
    "two captions files of one image": Odd(
        {**CAT, "cat.TXT": b"chat"}, {"cat.jpg": ("chat",)}, {"cat.txt": "cat.TXT has its name already"}
    ),
    "hidden files and folders": Odd(
        {**CAT, "._cat.jpg": b"", ".DS_Store": b"", ".thumbs/cat.jpg": IMAGE},
        READ,
        logged="left out 2 hidden files, 1 hidden folders",
    ),
    "files of other kinds": Odd(
        {**CAT, "a.json": b"{}", "b.json": b"{}", "notes.md": b"", "dog.svg": b""},
        READ,
        logged="left out 2 files ending in '.json', 1 files ending in '.svg', 1 files ending in '.md'",
    ),
    "class folders that are links": Odd(
        {"cats": Path("../elsewhere"), "../elsewhere/cat.jpg": IMAGE, "../elsewhere/cat.txt": CAPTION},
        {"cats/cat.jpg": ("a cat",)},
    ),
    "a link to the folder itself": Odd(
        {**CAT, "circle": Path()}, READ, logged="left out 1 links to folders read already"
    ),
    "links that lead in a circle": Odd(
        {"a/cat.jpg": IMAGE, "a/cat.txt": CAPTION, "a/b": Path("../c"), "c/a": Path("../a"), "c/up": Path("..")},
        {"a/cat.jpg": ("a cat",)},
        logged="left out 3 links to folders read already",
    ),
    "two links to one folder": Odd(
        {"x": Path("../elsewhere"), "y": Path("../elsewhere"), "../elsewhere/cat.jpg": IMAGE}
        | {"../elsewhere/cat.txt": CAPTION},
        {"x/cat.jpg": ("a cat",)},
        logged="left out 1 links to folders read already",
    ),
    "a folder that links to itself by name": Odd({**CAT, "loop": Path("loop")}, READ, logged="1 broken links"),
    "an image that is a link": Odd({"cat.jpg": Path("../real.jpg"), "cat.txt": CAPTION, "../real.jpg": IMAGE}, READ),
    "an image that is a broken link": Odd(
        {"cat.jpg": Path("gone.jpg"), "cat.txt": CAPTION}, left={"cat.jpg": "no image file at"}
    ),
    "captions that are a broken link": Odd(
        {"cat.jpg": IMAGE, "cat.txt": Path("gone.txt")}, left={"cat.jpg": "captions in cat.txt cannot be read"}
    ),
    "a broken link of another kind": Odd({**CAT, "dogs": Path("gone")}, READ, logged="left out 1 broken links"),
    "a folder named as an image": Odd(
        {"cat.jpg/dog.png": IMAGE, "cat.jpg/dog.txt": b"a dog"}, {"cat.jpg/dog.png": ("a dog",)}
    ),
    "metadata below": Odd(
        {"train/metadata.csv": b"file_name,text\ncat.jpg,a cat\n", "train/images/cat.jpg": IMAGE},
        left={"cat.jpg": "If metadata.csv has the captions, give it as path"},
        logged="1 files ending in '.csv'",
    ),
    "names that are not UTF-8": Odd(
        {os.fsdecode(b"caf\xe9.jpg"): IMAGE, os.fsdecode(b"caf\xe9.txt"): CAPTION},
        {os.fsdecode(b"caf\xe9.jpg"): ("a cat",)},
    ),
}


def lay_out(root: Path, files: dict[str, bytes | Path]) -> DataSource:
    for name, content in files.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return DataSource(str(root / "data"), format="folder")


@pytest.mark.parametrize("odd", FOLDERS.values(), ids=FOLDERS.keys())
def test_an_odd_folder_is_read_right_and_nothing_is_left_out_silently(
    tmp_path: Path, odd: Odd, caplog: pytest.LogCaptureFixture
) -> None:
    source = lay_out(tmp_path, odd.files)
    with caplog.at_level(logging.INFO):
        rows = list(iter_pairs(source))
    pairs = {os.path.relpath(str(row.image), source.path): row.captions for row in rows if isinstance(row, Pair)}
    assert pairs == odd.pairs
    rejected = {row.origin.source_path.name: row.reason for row in rows if isinstance(row, RejectedRow)}
    assert rejected.keys() == odd.left.keys()
    assert all(reason in rejected[name] for name, reason in odd.left.items())
    assert len(rows) == len(pairs) + len(rejected)
    assert ("left out" in caplog.text) == bool(odd.logged)
    assert odd.logged in caplog.text


def pack(path: Path, *members: tuple[str, Any]) -> DataSource:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return DataSource(str(path))


SHARDS: dict[str, tuple[list[tuple[str, Any]], list[tuple[str, ...]]]] = {
    "a line break in a caption": ([("1.jpg", IMAGE), ("1.txt", b"a cat\non a mat\n")], [("a cat\non a mat",)]),
    "line breaks of Windows": ([("1.jpg", IMAGE), ("1.txt", b"\r\na cat\r\n")], [("a cat",)]),
    "text and fields": ([("1.jpg", IMAGE), ("1.txt", b"a cat"), ("1.json", b'{"caption": "b"}')], [("a cat",)]),
    "fields with a line break": ([("1.jpg", IMAGE), ("1.json", b'{"caption": "a\\nb"}')], [("a\nb",)]),
    "UTF-16 with a mark": ([("1.jpg", IMAGE), ("1.txt", "猫".encode("utf-16"))], [("猫",)]),
    "fields in UTF-16": ([("1.jpg", IMAGE), ("1.json", '{"caption": "猫"}'.encode("utf-16"))], [("猫",)]),
    "fields with a mark": ([("1.jpg", IMAGE), ("1.json", b'\xef\xbb\xbf{"caption": "b"}')], [("b",)]),
    "suffixes in capitals": ([("1.JFIF", IMAGE), ("1.TXT", b"a cat")], [("a cat",)]),
    "a hard link to an image packed before": (
        [("1.jpg", IMAGE), ("1.txt", b"a"), ("2.jpg", (tarfile.LNKTYPE, "1.jpg")), ("2.txt", b"b")],
        [("a",), ("b",)],
    ),
    "folders": ([("x", (tarfile.DIRTYPE, "")), ("x/1.jpg", IMAGE), ("x/1.txt", b"a")], [("a",)]),
}


@pytest.mark.parametrize(("members", "expected"), SHARDS.values(), ids=SHARDS.keys())
def test_an_odd_shard_is_read_right(
    tmp_path: Path, members: list[tuple[str, Any]], expected: list[tuple[str, ...]]
) -> None:
    pairs = read_pairs(pack(tmp_path / "odd.tar", *members)).pairs
    assert [(pair.image, pair.captions) for pair in pairs] == [(IMAGE, texts) for texts in expected]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (("1.txt", "café".encode("cp1252")), "0xe9 is 'é' in Windows-1252"),
        (("1.txt", "cat".encode("utf-16-le")), "holds NUL characters"),
        (("1.txt", "cat".encode("utf-16")[:-1]), "captions are not UTF-8"),
        (("1.json", '{"caption": "é"}'.encode("cp1252")), "bad JSON: not UTF-8"),
        (("1.json", '{"caption": "x"}'.encode("utf-16")[:-1]), "bad JSON: not UTF-8"),
        (("1.json", b'{"caption": NaN}'), "NaN is not JSON"),
        (("1.json", b'{"caption": "a", "caption": "b"}'), "the key 'caption' occurs more than once"),
    ],
)
def test_bad_members_reject_their_sample_and_no_other(tmp_path: Path, content: tuple[str, bytes], reason: str) -> None:
    good = [("2.jpg", IMAGE), ("2.txt", CAPTION)]
    broken, pair = iter_pairs(pack(tmp_path / "odd.tar", ("1.jpg", IMAGE), content, *good))
    assert isinstance(broken, RejectedRow)
    assert (broken.origin.member, isinstance(pair, Pair)) == ("1", True)
    assert reason in broken.reason


def test_members_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hidden = [("._1.jpg", b""), ("__meta__/x.json", b""), ("README", b"")]
    with caplog.at_level(logging.INFO):
        read_pairs(pack(tmp_path / "odd.tar", ("1.jpg", IMAGE), ("1.txt", CAPTION), *hidden))
    assert "odd.tar: left out 3 hidden, meta or nameless members" in caplog.text


@pytest.mark.parametrize(("kind", "name"), [(tarfile.LNKTYPE, "gone.jpg"), (tarfile.SYMTYPE, "1.jpg")])
def test_a_link_to_no_file_of_the_shard_is_an_error_that_names_it(tmp_path: Path, kind: bytes, name: str) -> None:
    source = pack(tmp_path / "odd.tar", ("1.jpg", (kind, name)), ("1.txt", CAPTION))
    with pytest.raises(SourceFormatError, match=rf"odd\.tar, member 1\.jpg is a link to {name}, which holds no file"):
        read_pairs(source)


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"a.csv.gz": b"\x1f\x8b"}, SourceFormatError, r"'\.gz'; expected one format.*Unpack it first"),
        ({"a.xlsx": b"PK"}, SourceFormatError, r"'\.xlsx'; .*Save the sheet as CSV"),
        ({"a.arrow": b"ARROW1"}, SourceFormatError, r"'\.arrow'; .*Write it as Parquet"),
        ({"captions.txt": b"a.jpg#0\ta"}, SourceFormatError, r"'\.txt'; .*Set format = \"csv\" or \"tsv\""),
        ({}, SourceNotFoundError, "names no file or folder"),
    ],
)
def test_files_that_are_not_read_as_they_are_say_what_to_do(
    tmp_path: Path, files: dict[str, bytes | Path], error: type[DataError], says: str
) -> None:
    lay_out(tmp_path, files)
    path = tmp_path / "data" / next(iter(files), "gone")
    with pytest.raises(error, match=says):
        read_pairs(DataSource(str(path)))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_an_image_folder_of_hugging_face_names_its_columns_and_is_read_with_them(tmp_path: Path, name: str) -> None:
    content = {
        "metadata.csv": b"file_name,text\ncat.jpg,a cat\n",
        "metadata.jsonl": b'{"file_name": "cat.jpg", "text": "a cat"}\n',
    }[name]
    path = lay_out(tmp_path, {"cat.jpg": IMAGE, name: content}).path
    with pytest.raises(ColumnError, match=r'set image_column = "file_name"'):
        read_pairs(DataSource(path))
    with pytest.raises(ColumnError, match=r'set caption_columns = \["text"\]'):
        read_pairs(DataSource(path, image_column="file_name"))
    (pair,) = read_pairs(DataSource(path, image_column="file_name", caption_columns=("text",))).pairs
    assert (pair.image, pair.captions) == (Path(path) / "cat.jpg", ("a cat",))


def test_the_folder_that_img2dataset_writes_names_its_shards(tmp_path: Path) -> None:
    path = lay_out(tmp_path, {"00000.tar": b"", "00000.parquet": b"", "00000_stats.json": b"{}"}).path
    with pytest.raises(SourceFormatError, match=r"'\.parquet', '\.tar'; expected one format"):
        read_pairs(DataSource(path))
