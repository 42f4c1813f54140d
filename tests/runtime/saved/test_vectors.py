import sys
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime.errors import InputError, MissingDependencyError
from mmalign_runtime.saved import UNKNOWN_VARIANT, SavedVectors, load_vectors, save_vectors

NO_PYARROW = "Parquet needs pyarrow, the extra mmalign-runtime[parquet]"
SUFFIXES = [".npz", ".parquet"]


def saved(num_vectors: int = 3) -> SavedVectors:
    vectors = np.random.default_rng(0).normal(size=(num_vectors, 4)).astype(np.float32)
    ids = tuple(["dog.jpg", "été/猫.png", "dog.jpg"][i % 3] for i in range(num_vectors))
    return SavedVectors(ids, vectors, "space", "fp32-0")


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason=NO_PYARROW)
    return tmp_path / f"vectors{request.param}"


@pytest.mark.parametrize("num_vectors", [0, 1, 3, 100])
def test_what_is_saved_is_loaded(path: Path, num_vectors: int) -> None:
    save_vectors(path, saved(num_vectors))
    loaded = load_vectors(path)
    assert (loaded.ids, loaded.space_id, loaded.variant_id) == (saved(num_vectors).ids, "space", "fp32-0")
    np.testing.assert_array_equal(loaded.vectors, saved(num_vectors).vectors)
    assert loaded.vectors.dtype == np.float32


def test_vectors_in_another_memory_order_are_saved_as_they_read(path: Path) -> None:
    turned = SavedVectors(("a", "b", "c"), np.asfortranarray(saved().vectors), "space", "fp32-0")
    save_vectors(path, turned)
    np.testing.assert_array_equal(load_vectors(path).vectors, turned.vectors)


def test_a_save_replaces_what_was_there(path: Path) -> None:
    save_vectors(path, saved(100))
    save_vectors(path, saved(1))
    assert len(load_vectors(path).ids) == 1


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    save_vectors(path, saved(1))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot be written: .*No space left on device"):
        save_vectors(path, saved(100))
    assert list(path.parent.iterdir()) == [path]
    assert len(load_vectors(path).ids) == 1


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(small_disk: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
    path = small_disk / f"vectors{suffix}"
    save_vectors(path, saved(1))
    for num_vectors in (1_000_000, 100_000):  # of 4 numbers each: the disk has 300 kB
        with pytest.raises(InputError, match=r"cannot be written: .*No space left on device"):
            save_vectors(path, saved(num_vectors))
    assert list(small_disk.iterdir()) == [path]
    assert len(load_vectors(path).ids) == 1


@pytest.mark.parametrize("kept", [0, 10, 300])
def test_a_damaged_file_is_an_input_error(path: Path, kept: int) -> None:
    save_vectors(path, saved(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="damaged or incomplete"):
        load_vectors(path)


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such file\. Make one with `mmalign embed"):
        load_vectors(path)


def test_an_unknown_suffix_names_the_two_that_work(tmp_path: Path) -> None:
    for use in (lambda: save_vectors(tmp_path / "vectors.csv", saved()), lambda: load_vectors(tmp_path / "v.csv")):
        with pytest.raises(InputError, match=r"ends in '\.csv', expected \.parquet or \.npz"):
            use()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    save_vectors(tmp_path / "missing" / "deep" / "vectors.npz", saved())
    assert load_vectors(tmp_path / "missing" / "deep" / "vectors.npz").ids == saved().ids


def test_a_folder_is_not_a_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "vectors.npz").mkdir()
    with pytest.raises(InputError, match=r"vectors\.npz is a folder, expected a file's name"):
        save_vectors(tmp_path / "vectors.npz", saved())


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "\ud83d"])
def test_an_id_that_no_file_could_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not Unicode text, expected str without lone surrogates"):
        SavedVectors((name,), saved().vectors[:1], "space", "fp32-0")


def test_an_id_that_numpy_would_change_is_refused(tmp_path: Path) -> None:
    ended = SavedVectors(("a\0",), saved().vectors[:1], "space", "fp32-0")
    with pytest.raises(InputError, match="ends in a NUL, which numpy takes off"):
        save_vectors(tmp_path / "vectors.npz", ended)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-runtime\[parquet\]'"):
        save_vectors(tmp_path / "vectors.parquet", saved())


def test_ids_and_vectors_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) float32 for 1 ids"):
        SavedVectors(("a",), saved().vectors, "space", "fp32-0")


def npz(path: Path, **changes: object) -> Path:
    arrays = {"id": ["a"], "vector": np.ones((1, 4), np.float32), "space_id": "space", "variant_id": "fp32-0"}
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, **kept)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vector": None}, "has no array 'vector'; it has id, space_id, variant_id"),
        ({"vector": np.ones((1, 4))}, r"seen vectors \(1, 4\) float64"),
        ({"vector": np.ones(4, np.float32)}, r"expected \(N, D\) float32 and N ids"),
        ({"id": ["a", "b"]}, "and 2 ids"),
        ({"vector": np.full((1, 4), np.nan, np.float32)}, "NaN or infinity"),
        ({"space_id": ["one", "two"]}, "the vectors of one space, seen one, two"),
        ({"id": np.array([None])}, "is damaged"),  # a pickled array: never loaded
    ],
)
def test_an_archive_that_holds_something_else_is_refused(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        load_vectors(npz(tmp_path / "vectors.npz", **changes))


def test_whole_number_ids_are_read_as_text(tmp_path: Path) -> None:
    assert load_vectors(npz(tmp_path / "vectors.npz", id=[7])).ids == ("7",)


def parquet(path: Path, **changes: object) -> Path:
    pa = pytest.importorskip("pyarrow", reason=NO_PYARROW)
    import pyarrow.parquet as pq

    vector = pa.array([[1, 0], [0, 1]], pa.list_(pa.float32(), 2))
    columns = {"id": ["a", "b"], "vector": vector, "space_id": ["space", "space"]}
    pq.write_table(pa.table({name: column for name, column in (columns | changes).items() if column is not None}), path)
    return path


def test_a_table_rewritten_without_metadata_keeps_its_space(tmp_path: Path) -> None:
    loaded = load_vectors(parquet(tmp_path / "vectors.parquet", id=[1, 1]))
    assert (loaded.ids, loaded.space_id, loaded.variant_id) == (("1", "1"), "space", UNKNOWN_VARIANT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"space_id": ["one", "two"]}, "the vectors of one space, seen one, two"),
        ({"vector": None, "vectors": [1, 2]}, "has no column 'vector'; it has .* Did you mean 'vectors'"),
        ({"vector": [[1.0, 0.0], [0.0, 1.0]]}, "column 'vector' is list.* expected fixed_size_list"),
        ({"id": ["a", None]}, "expected"),
    ],
)
def test_a_table_that_holds_something_else_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_vectors(parquet(tmp_path / "vectors.parquet", **changes))


def test_another_reader_finds_plain_columns_and_metadata(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason=NO_PYARROW)
    import pyarrow.parquet as pq

    save_vectors(tmp_path / "vectors.parquet", saved())
    table = pq.read_table(tmp_path / "vectors.parquet")
    assert table.column_names == ["id", "vector", "space_id"]
    assert table.to_pylist()[1]["id"] == "été/猫.png"
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<")
    assert table.schema.metadata == {b"space_id": b"space", b"variant_id": b"fp32-0"}


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason=NO_PYARROW)
    for name, num_vectors in (("part-2.parquet", 1), ("part-1.parquet", 3), ("_other.parquet", 2)):
        save_vectors(tmp_path / name, saved(num_vectors))
    loaded = load_vectors(tmp_path)
    assert (loaded.ids, loaded.space_id) == ((*saved(3).ids, *saved(1).ids), "space")
    np.testing.assert_array_equal(loaded.vectors, np.concatenate([saved(3).vectors, saved(1).vectors]))


def test_a_folder_of_two_spaces_or_lengths_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    parquet(tmp_path / "b.parquet", space_id=["other", "other"])
    with pytest.raises(InputError, match="the vectors of one space, seen other, space"):
        load_vectors(tmp_path)
    save_vectors(tmp_path / "b.parquet", saved())
    with pytest.raises(InputError, match=r"vectors of \[2, 4\] numbers, expected one length"):
        load_vectors(tmp_path)


def test_a_folder_without_vectors_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.parquet files\. Make some with `mmalign embed"):
        load_vectors(tmp_path)


def test_a_vector_that_is_null_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", "26", reason="pyarrow before 26 reads no null in a column of fixed-size lists")
    path = parquet(tmp_path / "vectors.parquet", vector=pa.array([[1, 0], None], pa.list_(pa.float32(), 2)))
    with pytest.raises(InputError, match="column 'vector' has nulls"):
        load_vectors(path)
