"""Lists and text files in every encoding and with every line end that people's programs write."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime.bulk.lines import line_end, lines, not_utf8, text_encoding, whole_text
from mmalign_runtime.bulk.sources import open_source
from mmalign_runtime.errors import InputError

# Each with the byte order mark that announces it.
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
# Not ends of lines, whatever str.splitlines takes them for.
BREAKS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# A NUL is left out: enough of them in UTF-8 are refused, as UTF-16 without its mark.
ROW = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff"), max_size=8)


def rows_of(path: Path) -> list[str]:
    encoding = text_encoding(path)
    return list(lines(path, encoding, line_end(path, encoding)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows=st.lists(ROW | st.sampled_from(list(BREAKS)), min_size=1, max_size=6),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from([*MARKED, "utf-8 without a mark"]),
)
def test_the_rows_that_were_written_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("list") / "texts.txt"
    content = "".join(row + end for row in rows)
    mark = MARKED.get(encoding, b"")
    path.write_bytes(mark + content.encode(encoding.removesuffix(" without a mark")))
    assert rows_of(path) == rows
    assert [entry.item for entry in open_source(path, "text")] == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_carriage_return_inside_a_row_stays_where_lines_end_otherwise(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("a dog\rin a hat\r\nb\n\nlast\r".encode(encoding))
    assert rows_of(path) == ["a dog\rin a hat", "b", "", "last"]


def test_a_list_of_paths_from_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_bytes("a.jpg\r\n\r\ncafé/b.jpg\r\n".encode("utf-16"))
    assert [(entry.id, entry.item) for entry in open_source(tmp_path / "images.txt", "image")] == [
        ("a.jpg", tmp_path / "a.jpg"),
        ("café/b.jpg", tmp_path / "café/b.jpg"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["a dog\na cat\n", "猫と犬\n犬\n"])
def test_wide_text_without_its_mark_is_refused_by_name(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"texts\.txt is full of NUL bytes, as UTF-16 without a byte order mark is"):
        open_source(path, "text")


def test_a_stray_nul_in_a_long_text_is_not_utf16(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"a dog with \0 in it\n" + "é".encode() * 3000)
    assert rows_of(path)[0] == "a dog with \0 in it"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
@pytest.mark.parametrize("content", [b"a", b"a\0b", b"\0\xd8\0\xd8\0\xd8\0"])
def test_wide_text_that_was_cut_is_refused_by_name(tmp_path: Path, mark: bytes, content: bytes) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(mark + content)
    with pytest.raises(InputError, match=r"texts\.txt is not UTF-(16|32).*which its byte order mark announces"):
        open_source(path, "text")


def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"a dog\ncaf\xe9\nna\xefve\n")
    problems = [entry.problem for entry in open_source(path, "text")]
    assert problems[0] is None
    assert str(problems[1]).startswith("the byte 0xe9 at character 3 is not UTF-8. Save the file as UTF-8")
    assert str(problems[2]).startswith("the byte 0xef at character 2 is not UTF-8")
    assert not_utf8("a dog \N{DOG}") is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_text_file_is_one_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes("deux\r\nchiens\x85\r\n".encode(encoding))
    assert whole_text(path) == "deux\nchiens\x85"


def test_a_text_file_that_cannot_be_decoded_is_one_failure_among_the_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a dog".encode("utf-16-le"))
    (tmp_path / "b.txt").write_bytes(codecs.BOM_UTF16_LE + b"a")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "d.txt").write_bytes("a cat".encode("utf-16"))
    found = list(open_source(tmp_path, "text"))
    assert ["full of NUL bytes" in str(found[0].problem), "is not UTF-16" in str(found[1].problem)] == [True, True]
    assert "the byte 0xe9" in str(found[2].problem)
    assert (found[3].item, found[3].problem) == ("a cat", None)
