from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime.bulk.parts import Failure, read_failures, write_failures
from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import concatenate, metadata_of, row_groups
from mmalign_runtime.saved.vectors import write_vectors

pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")


def vectors(path: Path, *ids: str) -> Path:
    write_vectors(path, ids, np.full((len(ids), 3), 0.5, np.float32), {"space_id": "space", "num_items": "9"})
    return path


def test_failures_are_read_as_they_were_written(tmp_path: Path) -> None:
    failures = [Failure(3, "été.jpg", "decode", "it is damaged"), Failure(7, "b", "open", "it is gone")]
    write_failures(tmp_path / "errors.parquet", failures)
    assert read_failures(tmp_path / "errors.parquet") == failures


def test_files_become_one_with_their_groups_in_order(tmp_path: Path) -> None:
    paths = [
        vectors(tmp_path / "a.parquet", "a", "b"),
        vectors(tmp_path / "b.parquet"),
        vectors(tmp_path / "c.parquet", "c"),
    ]
    concatenate(paths, tmp_path / "all.parquet", {"space_id": "space"})
    groups = list(row_groups(tmp_path / "all.parquet", ["id"]))
    assert [group.column("id").to_pylist() for group in groups if group.num_rows] == [["a", "b"], ["c"]]
    assert metadata_of(tmp_path / "all.parquet") == {"space_id": "space"}


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = vectors(tmp_path / "a.parquet", *map(str, range(100)))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet"):
        list(row_groups(path))
