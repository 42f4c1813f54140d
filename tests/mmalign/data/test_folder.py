from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.data import DataSource, EmptySourceError, RejectedRow, iter_pairs, read_pairs

PutImage = Callable[[str], Path]


def rejected(folder: Path) -> dict[str, str]:
    rows = [row for row in iter_pairs(DataSource(str(folder))) if isinstance(row, RejectedRow)]
    return {row.origin.source_path.name: row.reason for row in rows}


def test_each_line_beside_an_image_is_a_caption(tmp_path: Path, put_image: PutImage) -> None:
    path = put_image("cat.jpg")
    (tmp_path / "cat.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n\r\nchat \r\n")
    (pair,) = read_pairs(DataSource(str(tmp_path))).pairs
    assert (pair.image, pair.captions) == (path, ("a cat", "chat"))
    assert pair.origin.source_path == path


def test_folders_are_walked_in_order_in_any_case_and_alphabet(tmp_path: Path, put_image: PutImage) -> None:
    names = ["a.PNG", "b/猫 é.JPEG", "b/c/d.webp"]
    for name in names:
        put_image(name).with_suffix(".TXT").write_text("seen", encoding="utf-8")
    assert [pair.image for pair in read_pairs(DataSource(str(tmp_path))).pairs] == [tmp_path / name for name in names]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path, put_image: PutImage) -> None:
    for name in ["cat.jpg", ".trash/old.jpg", "._cat.jpg"]:
        put_image(name).with_suffix(".txt").write_text("a cat")
    assert [pair.image for pair in read_pairs(DataSource(str(tmp_path))).pairs] == [tmp_path / "cat.jpg"]


def test_an_image_without_captions_is_rejected(tmp_path: Path, put_image: PutImage) -> None:
    put_image("cat.jpg")
    assert rejected(tmp_path) == {"cat.jpg": "no captions; expected cat.txt beside it"}


def test_captions_without_an_image_are_rejected(tmp_path: Path, put_image: PutImage) -> None:
    put_image("cat.jpg").with_suffix(".txt").write_text("a cat")
    (tmp_path / "dog.txt").write_text("a dog")
    assert rejected(tmp_path) == {"dog.txt": "no image of this name; expected one beside the text"}


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "no caption: "), (b"\n \n", "no caption: "), (b"\xff", "not UTF-8")]
)
def test_captions_that_hold_no_text_are_rejected(
    tmp_path: Path, put_image: PutImage, content: bytes, reason: str
) -> None:
    put_image("cat.jpg").with_suffix(".txt").write_bytes(content)
    assert reason in rejected(tmp_path)["cat.jpg"]


def test_other_files_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(EmptySourceError, match="read as folder, holds nothing"):
        read_pairs(DataSource(str(tmp_path)))
