from pathlib import Path

import pytest

from mmalign.data import ColumnError, DataSource, Pair, RejectedRow, iter_pairs, read_pairs

CAT = b'{"image": "a.jpg", "caption": "a cat"}\n'


def write(tmp_path: Path, content: bytes) -> DataSource:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    return DataSource(str(path), check_images=False)


def test_captions_may_be_lists_with_nulls(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, b'{"image": "a.jpg", "caption": ["a cat", null, "chat"]}')).pairs
    assert pair.captions == ("a cat", "chat")


def test_mark_blank_lines_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + CAT + b"\r\n\n" + CAT.replace(b"\n", b"\r\n")
    assert [pair.origin.line for pair in read_pairs(write(tmp_path, content)).pairs] == [1, 4]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"image": "b.jpg", ', "bad JSON"),
        (b'["b.jpg", "a dog"]', "Expected `object`, got `array`"),
        (b'{"image": "b.jpg", "caption": "caf\xe9!"}', "codec can't decode"),
        (b'{"image": "b.jpg"}', "no caption"),
        (b'{"image": 3, "caption": "a dog"}', "image is 3 (int)"),
        (b'{"caption": "a dog"}', "no image"),
    ],
)
def test_a_bad_line_is_rejected_and_reading_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    first, broken, last = iter_pairs(write(tmp_path, CAT + line + b"\n" + CAT))
    assert isinstance(broken, RejectedRow)
    assert broken.origin.line == 2
    assert reason in broken.reason
    assert isinstance(first, Pair)
    assert isinstance(last, Pair)


def test_a_key_that_no_row_has_is_a_column_error(tmp_path: Path) -> None:
    source = write(tmp_path, CAT.replace(b"caption", b"text") * 3)
    with pytest.raises(ColumnError, match=r"no column 'caption'.*present: 'image', 'text'"):
        read_pairs(source, on_error="skip")
