from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmalign.data import ColumnError, DataSource, Pair, RejectedRow, SourceFormatError, iter_pairs, read_pairs
from mmalign.data.parquet import BATCH_ROWS


def write(path: Path, columns: dict[str, object], row_group_size: int | None = None) -> DataSource:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return DataSource(str(path))


def test_images_may_be_bytes(tmp_path: Path, jpeg: bytes) -> None:
    (pair,) = read_pairs(write(tmp_path / "a.parquet", {"image": [jpeg], "caption": ["a cat"]})).pairs
    assert (pair.image, pair.captions, pair.origin.row) == (jpeg, ("a cat",), 0)


def test_images_may_be_structs_and_captions_lists(
    tmp_path: Path, jpeg: bytes, put_image: Callable[[str], Path]
) -> None:
    path = put_image("cat.png")
    images = [{"bytes": jpeg, "path": "x.jpg"}, {"bytes": None, "path": "cat.png"}]
    source = write(tmp_path / "a.parquet", {"image": images, "caption": [["a cat", "chat"], ["cat"]]})
    first, second = read_pairs(source).pairs
    assert (first.image, first.captions) == (jpeg, ("a cat", "chat"))
    assert (second.image, second.concept) == (path, second.image_id)


def test_null_cells_reject_their_rows(tmp_path: Path, jpeg: bytes) -> None:
    columns = {"image": [jpeg, None, jpeg], "caption": [None, "a cat", "a dog"]}
    no_caption, no_image, pair = iter_pairs(write(tmp_path / "a.parquet", columns))
    assert isinstance(no_caption, RejectedRow)
    assert (no_caption.origin.row, no_caption.reason.split(":")[0]) == (0, "no caption")
    assert isinstance(no_image, RejectedRow)
    assert (no_image.origin.row, no_image.reason.split(":")[0]) == (1, "no image")
    assert isinstance(pair, Pair)


def test_rows_are_counted_through_row_groups_and_batches(tmp_path: Path, jpeg: bytes) -> None:
    num_rows = 2 * BATCH_ROWS + 5
    columns: dict[str, object] = {"image": [jpeg] * num_rows, "caption": [str(at) for at in range(num_rows)]}
    pairs = read_pairs(write(tmp_path / "a.parquet", columns, row_group_size=BATCH_ROWS - 7)).pairs
    assert [(pair.origin.row, pair.captions) for pair in pairs] == [(at, (str(at),)) for at in range(num_rows)]


def test_numbers_are_good_concepts_and_dictionaries_good_groups(tmp_path: Path, jpeg: bytes) -> None:
    columns = {"image": [jpeg], "caption": ["a"], "id": [7], "class": pa.array(["pet"]).dictionary_encode()}
    path = write(tmp_path / "a.parquet", columns).path
    (pair,) = read_pairs(DataSource(path, concept_column="id", group_column="class")).pairs
    assert (pair.concept, pair.group) == ("7", "pet")


def test_a_wrong_column_is_an_error(tmp_path: Path, jpeg: bytes) -> None:
    source = write(tmp_path / "a.parquet", {"image": [jpeg], "captions": ["a cat"]})
    with pytest.raises(ColumnError, match="the nearest is 'captions'; set caption_columns"):
        read_pairs(source, on_error="skip")


def test_a_file_in_another_format_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("image,caption\n")
    with pytest.raises(SourceFormatError, match=r"a\.parquet cannot be read as Parquet"):
        read_pairs(DataSource(str(tmp_path / "a.parquet")))


def test_a_damaged_page_is_an_error_that_names_the_file(tmp_path: Path, jpeg: bytes) -> None:
    source = write(tmp_path / "a.parquet", {"image": [jpeg] * 9, "caption": ["a cat"] * 9})
    content = bytearray(Path(source.path).read_bytes())
    content[4:60] = b"\xff" * 56
    Path(source.path).write_bytes(content)
    with pytest.raises(SourceFormatError, match=r"a\.parquet cannot be read as Parquet"):
        read_pairs(source)


def test_text_that_is_not_utf8_is_an_error_that_names_the_file_and_the_row(tmp_path: Path, jpeg: bytes) -> None:
    num_rows = BATCH_ROWS + 6
    offsets, text = (
        pa.array(range(num_rows + 1), pa.int32()).buffers()[1],
        pa.py_buffer(b"x" * (num_rows - 1) + b"\xe9"),
    )
    captions = pa.Array.from_buffers(pa.string(), num_rows, [None, offsets, text])
    source = write(tmp_path / "a.parquet", {"image": [jpeg] * num_rows, "caption": captions})
    message = rf"a\.parquet cannot be read as Parquet: row {num_rows - 1}, column 'caption' \(string\)"
    with pytest.raises(SourceFormatError, match=message):
        read_pairs(source)
