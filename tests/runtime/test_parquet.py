from pathlib import Path

import pytest

from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, open_parquet

pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"caption": ["a dog"], "image": [b""]}), tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_a_missing_column_names_the_columns_and_the_nearest(path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'captions'; it has 'caption', 'image'. Did you mean 'caption'\?"):
        check_column(open_parquet(path), "captions", path)
    with pytest.raises(InputError, match=r"it has 'caption', 'image'\. Name one of these"):
        check_column(open_parquet(path), "xyz", path)


def test_a_damaged_file_is_an_input_error(path: Path) -> None:
    path.write_bytes(b"PAR1 and nothing of use")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_parquet(path)
