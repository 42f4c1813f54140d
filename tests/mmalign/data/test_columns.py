from pathlib import Path

import pytest

from mmalign.data import (
    ColumnError,
    DataConfigError,
    DataSource,
    Origin,
    RejectedRow,
    SourceFormatError,
    merge_pairs,
    read_pairs,
)
from mmalign.data.columns import HEAD_RECORDS, Record, cells_of, check_columns, check_first_records, wanted_columns

PATH = Path("pairs.jsonl")
SOURCE = DataSource("pairs.jsonl")


def record(*names: str) -> Record:
    return Record(Origin(PATH, line=1), dict.fromkeys(names, "x"))


def test_a_missing_column_names_those_present_the_nearest_and_the_setting() -> None:
    message = r"no column 'caption', which caption_columns asks for.*'image', 'captoin'; the nearest is 'captoin'"
    with pytest.raises(ColumnError, match=message):
        check_columns(PATH, ["image", "captoin"], wanted_columns(SOURCE))


def test_a_missing_column_without_any_present_says_so() -> None:
    with pytest.raises(ColumnError, match="Columns present: none; change image_column"):
        check_columns(PATH, [], wanted_columns(SOURCE))


def test_a_column_that_is_there_twice_is_an_error_only_when_it_is_wanted() -> None:
    check_columns(PATH, ["image", "caption", "", ""], wanted_columns(SOURCE))
    with pytest.raises(SourceFormatError, match="2 columns named 'caption'; expected one"):
        check_columns(PATH, ["image", "caption", "caption"], wanted_columns(SOURCE))


def test_every_configured_column_is_wanted() -> None:
    source = DataSource("a.csv", caption_columns=("en", "de"), concept_column="id", group_column="class")
    assert list(wanted_columns(source)) == ["image", "en", "de", "id", "class"]


def test_cells_are_picked_by_name_and_absent_ones_are_null() -> None:
    source = DataSource("a.csv", caption_columns=("en", "de"), concept_column="id", group_column="class")
    cells = cells_of(source, Record(Origin(PATH), {"image": "a.jpg", "de": "Katze", "class": 3}))
    assert (cells.image, cells.captions, cells.concept, cells.group) == ("a.jpg", (None, "Katze"), None, 3)


def test_a_name_that_only_some_of_the_first_records_have_is_right() -> None:
    records = [record("image"), record("image", "caption")]
    assert list(check_first_records(SOURCE, PATH, records)) == records


def test_a_name_that_none_of_the_first_records_has_is_wrong() -> None:
    records = [record("image")] * HEAD_RECORDS + [record("image", "caption")]
    with pytest.raises(ColumnError, match="no column 'caption'"):
        check_first_records(SOURCE, PATH, records)


def test_rejected_rows_say_nothing_about_columns() -> None:
    rows = [RejectedRow(Origin(PATH, line=1), "bad JSON")]
    assert list(check_first_records(SOURCE, PATH, rows)) == rows


def test_what_a_format_gives_itself_needs_no_column() -> None:
    sample = Record(Origin(PATH), {}, image=b"x", captions=("a cat",))
    assert list(check_first_records(SOURCE, PATH, [sample])) == [sample]
    with pytest.raises(ColumnError, match="no column 'id', which concept_column asks for"):
        check_first_records(DataSource("a.tar", concept_column="id"), PATH, [sample])


def test_columns_by_language_are_wanted_and_their_captions_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"image": "a.png", "title": "cat", "tags": ["pet", "Pizza"], "titel": "Katze", "x": ["Pizza"]}\n')
    columns = {"en": ("title", "tags"), "de": ("titel", "x")}
    source = DataSource(str(path), caption_columns=columns, check_images=False)
    assert list(wanted_columns(source)) == ["image", "title", "tags", "titel", "x"]
    (pair,) = read_pairs(source).pairs
    assert pair.captions == ("cat", "pet", "Pizza", "Katze", "Pizza")
    assert pair.languages == (("en", "cat"), ("en", "pet"), ("en", "Pizza"), ("de", "Katze"), ("de", "Pizza"))
    (merged,) = merge_pairs([pair, pair])
    assert (merged.captions, merged.languages) == (("cat", "pet", "Pizza", "Katze"), pair.languages)
    (plain,) = read_pairs(DataSource(str(path), caption_columns=("title",), check_images=False)).pairs
    assert plain.languages == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected a list of one or more column names"),
        ({"en": ()}, "or such lists by language, such as"),
        ({"en": "caption"}, "or such lists by language, such as"),
        ({"en": ("a",), "de": ("a",)}, "names 'a' in two languages; expected each column once"),
        ({" ": ("a",)}, "expected a name for each language"),
    ],
)
def test_languages_without_columns_are_refused(columns: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataConfigError, match=message):
        DataSource("pairs.csv", caption_columns=columns)
