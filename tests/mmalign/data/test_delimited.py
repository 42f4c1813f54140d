import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.data import ColumnError, DataSource, Pair, RejectedRow, SourceFormatError, iter_pairs, read_pairs
from mmalign.data.quoted import MAX_ROW_LINES


def write(tmp_path: Path, text: str, name: str = "pairs.csv", encoding: str = "utf-8") -> DataSource:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return DataSource(str(path), check_images=False)


def rejected(source: DataSource) -> list[str]:
    rows = [row for row in iter_pairs(source) if isinstance(row, RejectedRow)]
    return [f"{row.origin.line}: {row.reason}" for row in rows]


def test_a_csv_row_becomes_a_pair(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    path = put_image("cat.jpg")
    source = write(tmp_path, "image,caption\ncat.jpg,a cat\n")
    (pair,) = read_pairs(DataSource(source.path)).pairs
    assert (pair.image, pair.captions, pair.concept, pair.group) == (path, ("a cat",), pair.image_id, None)
    assert str(pair.origin) == f"{source.path}, line 2"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    source = write(tmp_path, "image,caption\r\na.jpg,a cat\r\nb.jpg,a dog\r\n", encoding="utf-8-sig")
    assert [pair.captions for pair in read_pairs(source).pairs] == [("a cat",), ("a dog",)]


def test_a_line_number_is_that_of_the_file_after_newlines_in_cells(tmp_path: Path) -> None:
    source = write(tmp_path, 'image,caption\na.jpg,"a cat\non a\nmat"\n\nb.jpg,a dog\n')
    first, second = read_pairs(source).pairs
    assert (first.origin.line, second.origin.line) == (2, 6)
    assert first.captions == ("a cat\non a\nmat",)


def test_tabs_separate_a_tsv(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, "caption\timage\na cat, asleep\tä.jpg\n", "pairs.tsv")).pairs
    assert (pair.captions, Path(str(pair.image)).name) == (("a cat, asleep",), "ä.jpg")


def test_every_caption_column_counts_and_an_empty_one_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "image,en,de,id,class\na.jpg,cat,,7,pet\n").path
    source = DataSource(
        path, caption_columns=("en", "de"), concept_column="id", group_column="class", check_images=False
    )
    (pair,) = read_pairs(source).pairs
    assert (pair.captions, pair.concept, pair.group) == (("cat",), "7", "pet")


def test_rows_with_too_few_or_too_many_cells_are_rejected(tmp_path: Path) -> None:
    seen = rejected(write(tmp_path, "image,caption\na.jpg\nb.jpg,a cat, asleep\nc.jpg,a dog\n"))
    assert [reason.split(";")[0] for reason in seen] == ["2: 1 cells", "3: 3 cells"]


def test_a_quote_inside_a_cell_rejects_its_row_alone(tmp_path: Path) -> None:
    source = write(tmp_path, 'image,caption\na.jpg,"a "big" cat"\nb.jpg,a dog\n')
    broken, pair = iter_pairs(source)
    assert isinstance(broken, RejectedRow)
    assert "line 2" in str(broken.origin)
    assert isinstance(pair, Pair)


def test_a_quote_that_is_never_closed_is_reported_where_it_opens(tmp_path: Path) -> None:
    source = write(tmp_path, 'image,caption\na.jpg,"a cat\nb.jpg,a dog\n')
    (reason,) = rejected(source)
    assert [pair.captions for pair in read_pairs(source, on_error="skip").pairs] == [("a dog",)]
    assert reason.startswith("2: a quote opens here that is not closed up to the end, line 3. Set quoting")


def test_a_broken_header_is_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"line 1: .*expected a row of column names"):
        read_pairs(write(tmp_path, 'image,"caption\na.jpg,a cat\n'), on_error="skip")


def test_a_file_that_is_not_utf8_is_an_error_that_names_the_line_and_the_character(tmp_path: Path) -> None:
    message = r"pairs\.csv, line 2 is not UTF-8 .*byte 0xe9 is 'é' in Windows-1252\); save it as UTF-8"
    with pytest.raises(SourceFormatError, match=message):
        read_pairs(write(tmp_path, "image,caption\na.jpg,café\n", encoding="latin-1"), on_error="skip")


def test_a_wrong_column_is_an_error_even_when_rows_are_skipped(tmp_path: Path) -> None:
    with pytest.raises(ColumnError, match="Columns present: 'image', 'Caption'; the nearest is 'Caption'"):
        read_pairs(write(tmp_path, "image,Caption\na.jpg,a cat\n"), on_error="skip")


def test_what_is_read_ahead_for_an_open_quote_is_bounded_and_read_again(tmp_path: Path) -> None:
    rows = "".join(f"{at}.jpg,caption {at}\n" for at in range(3 * MAX_ROW_LINES))
    source = write(tmp_path, f'image,caption\nx.jpg,"a dog\n{rows}')
    (reason,) = rejected(source)
    assert reason.startswith(f"2: a quote opens here that is not closed up to line {MAX_ROW_LINES + 1}.")
    assert len(read_pairs(source, on_error="skip").pairs) == 3 * MAX_ROW_LINES


def test_lines_lost_to_quotes_are_counted_as_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path, 'image,caption\na.jpg,"a\nb\nc",too many\nb.jpg,a dog\n')
    with caplog.at_level(logging.WARNING):
        read = read_pairs(source, on_error="skip")
    assert [row.origin.line for row in read.rejected] == [2, 3, 4]
    assert "skipped 3 of 4 rows; the first is" in caplog.text
