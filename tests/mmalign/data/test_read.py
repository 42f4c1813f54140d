import logging
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from mmalign.data import (
    DataConfigError,
    DataSource,
    EmptySourceError,
    Pair,
    RejectedRow,
    RowError,
    SourceError,
    SourceNotFoundError,
    iter_pairs,
    read_pairs,
)
from mmalign.data.read import reader_of
from mmalign.data.source import FORMATS, Format

PutImage = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path, put_image: PutImage) -> DataSource:
    """Return a table of three rows of which the second names no image file."""
    put_image("cat.jpg")
    put_image("dog.png")
    (tmp_path / "pairs.csv").write_text("image,caption\ncat.jpg,a cat\ngone.jpg,a ghost\ndog.png,a dog\n")
    return DataSource(str(tmp_path / "pairs.csv"))


def test_every_format_has_a_reader() -> None:
    assert set(FORMATS) == set(get_args(Format))
    assert len({reader_of(name) for name in FORMATS}) == len(FORMATS)


def test_the_first_bad_row_raises_with_place_reason_and_advice(source: DataSource) -> None:
    with pytest.raises(RowError, match=r'pairs\.csv, line 3: no image file at .*expected .*set on_error = "skip"'):
        read_pairs(source)


def test_bad_rows_are_skipped_and_counted_on_request(source: DataSource, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read = read_pairs(source, on_error="skip")
    assert [pair.captions for pair in read.pairs] == [("a cat",), ("a dog",)]
    assert [row.origin.line for row in read.rejected] == [3]
    assert "skipped 1 of 3 rows; the first is" in caplog.text


def test_the_look_for_image_files_can_be_left_out(source: DataSource) -> None:
    assert len(read_pairs(DataSource(source.path, check_images=False)).pairs) == 3


def test_pairs_come_one_at_a_time(source: DataSource) -> None:
    rows = iter_pairs(source)
    assert isinstance(next(rows), Pair)
    assert isinstance(next(rows), RejectedRow)


def test_a_missing_source_raises_before_the_first_pair_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="names no file or folder"):
        iter_pairs(DataSource(str(tmp_path / "none.csv")))


def test_files_are_joined_in_order_and_images_found_beside_each(tmp_path: Path, put_image: PutImage) -> None:
    for folder in ("b", "a"):
        put_image(f"{folder}/1.jpg")
        (tmp_path / folder / "pairs.csv").write_text("image,caption\n1.jpg,one\n")
    pairs = read_pairs(DataSource(str(tmp_path / "*" / "pairs.csv"))).pairs
    assert [pair.image for pair in pairs] == [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg"]
    assert len({pair.concept for pair in pairs}) == 2


def test_concepts_do_not_depend_on_the_working_directory(source: DataSource, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = [pair.concept for pair in read_pairs(source, on_error="skip").pairs]
    monkeypatch.chdir(Path(source.path).parent)
    assert [pair.concept for pair in read_pairs(DataSource("pairs.csv"), on_error="skip").pairs] == absolute
    assert [pair.concept for pair in read_pairs(DataSource("*.csv"), on_error="skip").pairs] == absolute


def test_an_image_root_replaces_the_folder_of_the_source(tmp_path: Path, put_image: PutImage) -> None:
    path = put_image("images/cat.jpg")
    (tmp_path / "pairs.csv").write_text("image,caption\ncat.jpg,a cat\n")
    (pair,) = read_pairs(DataSource(str(tmp_path / "pairs.csv"), image_root=str(tmp_path / "images"))).pairs
    assert pair.image == path


@pytest.mark.parametrize("content", ["", "image,caption\n", "\n\n"])
def test_a_source_without_rows_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(EmptySourceError, match="read as csv, holds nothing; expected one or more pairs"):
        read_pairs(DataSource(str(tmp_path / "pairs.csv")))


def test_one_empty_file_among_others_is_no_error(source: DataSource) -> None:
    folder = Path(source.path).parent
    (folder / "more.csv").write_text("image,caption\n")
    assert len(read_pairs(DataSource(str(folder)), on_error="skip").pairs) == 2


def test_a_source_whose_rows_are_all_rejected_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("image,caption\ngone.jpg,a\ngone.jpg,b\n")
    with pytest.raises(EmptySourceError, match=r"all 2 rows were rejected; the first is .*line 2: no image file"):
        read_pairs(DataSource(str(tmp_path / "pairs.csv")), on_error="skip")


def test_a_file_that_goes_away_is_an_error_that_names_it(source: DataSource) -> None:
    rows = iter_pairs(source)
    Path(source.path).unlink()
    with pytest.raises(SourceError, match=r"pairs\.csv cannot be read \(.*No such file.*check its permissions"):
        next(rows)


def test_a_folder_that_goes_away_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    rows = iter_pairs(DataSource(str(folder)))
    folder.rmdir()
    with pytest.raises(SourceError, match=r"images cannot be read \(.*No such file.*check its permissions"):
        next(rows)


def test_an_unknown_policy_is_refused(source: DataSource) -> None:
    with pytest.raises(DataConfigError, match='on_error = \'ignore\' is unknown; expected "raise" or "skip"'):
        read_pairs(source, on_error="ignore")  # type: ignore[arg-type]
