"""Columns of every Arrow type that texts, images and ids come in."""

import decimal
import uuid
from pathlib import Path

import pytest

from mmalign_runtime.bulk.sources import open_source
from mmalign_runtime.errors import InputError

pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
import pyarrow.parquet as pq  # noqa: E402

TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]
BINARY_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)]
UUID = uuid.UUID(int=7)


def table(folder: Path, *, row_group_size: int = 2, **columns: object) -> Path:
    pq.write_table(pa.table(columns), folder / "table.parquet", row_group_size=row_group_size)
    return folder / "table.parquet"


def not_utf8(*texts: bytes) -> object:
    """An array of strings that pyarrow did not check, as other writers leave them."""
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    buffers = [None, pa.array(offsets, pa.int32()).buffers()[1], pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def items(path: Path, kind: str, **options: str) -> list[object]:
    return [entry.item for entry in open_source(path, kind, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_texts_of_every_type_are_read(tmp_path: Path, kind: object) -> None:
    path = table(tmp_path, text=pa.array(["a dog", None, "猫"], kind))
    assert items(path, "text") == ["a dog", None, "猫"]
    path = table(tmp_path, text=pa.array(["a", None, "a"]).dictionary_encode())
    assert items(path, "text") == ["a", None, "a"]


@pytest.mark.parametrize("kind", BINARY_TYPES, ids=str)
def test_files_of_every_type_are_read(tmp_path: Path, kind: object) -> None:
    assert items(table(tmp_path, image=pa.array([b"xy", None, b"zz"], kind)), "image") == [b"xy", None, b"zz"]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_paths_of_every_type_are_relative_to_the_table(tmp_path: Path, kind: object) -> None:
    path = table(tmp_path, image=pa.array(["a.jpg", "/b.jpg"], kind))
    assert items(path, "image") == [tmp_path / "a.jpg", Path("/b.jpg")]


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
@pytest.mark.parametrize("text", TEXT_TYPES, ids=str)
def test_an_image_of_a_hugging_face_data_set_is_its_bytes_or_else_its_path(
    tmp_path: Path, binary: object, text: object
) -> None:
    rows = [{"bytes": b"x", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None, {"bytes": None, "path": None}]
    image = pa.array(rows * 40, pa.struct([("bytes", binary), ("path", text)]))
    path = table(tmp_path, row_group_size=1000, image=image, label=range(len(image)))
    assert items(path, "image") == [b"x", tmp_path / "b.jpg", None, None] * 40


def test_a_struct_may_have_one_of_the_two_and_others_beside_it(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"x", "width": 3}], pa.struct([("bytes", pa.binary()), ("width", pa.int32())]))
    assert items(table(tmp_path, image=image), "image") == [b"x"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"]]),
        pa.array([[b"a"]]),
        pa.nulls(1),
        pa.array([1.5]),
        pa.array([{"width": 3}]),
        pa.array([[("a", b"x")]], pa.map_(pa.string(), pa.binary())),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_column_of_another_type_is_refused_by_its_name_and_type(tmp_path: Path, column: object, kind: str) -> None:
    path = table(tmp_path, cell=column)
    with pytest.raises(InputError, match=r"column 'cell' is (list|null|double|struct|map).*, expected"):
        open_source(path, kind, column="cell")  # type: ignore[arg-type]


def test_a_text_that_is_not_utf8_is_one_failure_among_the_rows(tmp_path: Path) -> None:
    path = table(tmp_path, text=not_utf8(b"a dog", b"caf\xe9"))
    found = list(open_source(path, "text"))
    assert (found[0].item, found[0].problem) == ("a dog", None)
    assert str(found[1].problem).startswith("the byte 0xe9 at character 3 is not UTF-8")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([b"x", b"y"]), ["x", "y"]),
        (pa.array(["é".encode(), b"y"], pa.large_binary()), ["é", "y"]),
        (pa.array([b"x1", b"y1"], pa.binary(2)), ["x1", "y1"]),
        (pa.array([b"x", b"y"], pa.binary_view()), ["x", "y"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x", "x"]).dictionary_encode(), ["x", "x"]),
        (pa.array([b"x", b"x"]).dictionary_encode(), ["x", "x"]),
        (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
        (pa.array([-(2**63), 7]), ["-9223372036854775808", "7"]),
        (pa.array([decimal.Decimal(10**30), decimal.Decimal(1)], pa.decimal128(38, 0)), [f"1{'0' * 30}", "1"]),
        (pa.array([UUID.bytes] * 2, pa.uuid()), [str(UUID)] * 2),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_ids_are_texts_and_whole_numbers_of_every_type(tmp_path: Path, column: object, expected: list[str]) -> None:
    path = table(tmp_path, text=["a", "b"], key=column)
    source = open_source(path, "text", column="text", id_column="key")
    assert [entry.id for entry in source] == expected
    assert [entry.id for entry in source.entries(1)] == expected[1:]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.0]),
        pa.array([True, False]),
        pa.array([decimal.Decimal("1.50")] * 2, pa.decimal128(10, 2)),
        pa.array([0, 1], pa.timestamp("us")),
        pa.array([0, 1], pa.date32()),
        pa.array([["a"], ["b"]]),
        pa.array([{"id": 1}, {"id": 2}]),
        pa.nulls(2),
    ],
    ids=lambda column: str(column.type),
)
def test_ids_of_another_type_are_refused_before_a_row_is_read(tmp_path: Path, column: object) -> None:
    path = table(tmp_path, text=["a", "b"], key=column)
    with pytest.raises(InputError, match=r"column 'key' is .*, expected texts or whole numbers as ids"):
        open_source(path, "text", column="text", id_column="key")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([b"x", b"y", b"\xff\xd8"]), r"column 'key', row 2 \(from 0\) is not UTF-8 \(\\xff\\xd8\)"),
        (not_utf8(b"x", b"y", b"caf\xe9"), r"column 'key', row 2 \(from 0\) is not UTF-8 \(caf\\xe9\)"),
        (pa.array([b"x", b"y", None]), r"column 'key', row 2 \(from 0\) is empty, expected an id"),
    ],
)
@pytest.mark.parametrize("start", [0, 2])
def test_an_id_that_cannot_be_one_is_named_by_its_row(tmp_path: Path, column: object, reason: str, start: int) -> None:
    path = table(tmp_path, text=["a", "b", "c"], key=column)
    with pytest.raises(InputError, match=r"table\.parquet: " + reason):
        list(open_source(path, "text", column="text", id_column="key").entries(start))


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "table.parquet")
    with pytest.raises(InputError, match="has 2 columns 'text', expected one"):
        open_source(tmp_path / "table.parquet", "text", column="text")
