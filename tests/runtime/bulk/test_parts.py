import errno
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime.bulk.claim import claim
from mmalign_runtime.bulk.parts import Failure, Part, PartsFolder, Span
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.errors import InputError
from mmalign_runtime.saved.manifest import Manifest

pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")

MANIFEST = Manifest(
    source="photos",
    kind="image",
    column=None,
    id_column=None,
    num_items=10,
    fingerprint="f",
    bundle="bundle",
    space_id="space",
    variant_id="fp32-0",
    config=RuntimeConfig(provider="cpu"),
    embed_dim=4,
    batch_size=2,
)


def part(first: int, *, num_items: int = 2, failed: int = 0) -> Part:
    rows = range(first, first + num_items)
    failures = [Failure(row, f"item {row}", "decode", "it is damaged") for row in rows[:failed]]
    vectors = [np.full(4, row, np.float32) for row in rows[failed:]]
    return Part(first, num_items, [f"item {row}" for row in rows[failed:]], vectors, failures)


@pytest.fixture
def parts(tmp_path: Path) -> PartsFolder:
    parts = PartsFolder(tmp_path)
    parts.begin(MANIFEST)
    return parts


def test_what_no_part_stands_for_is_a_gap(parts: PartsFolder) -> None:
    assert parts.gaps(10) == [Span(0, 10)]
    for first in (2, 4, 8):
        parts.write(part(first), MANIFEST)
    assert parts.gaps(10) == [Span(0, 2), Span(6, 8)]
    assert parts.num_done(10) == 6


def test_a_part_of_nothing_but_failures_counts(parts: PartsFolder) -> None:
    parts.write(part(0, num_items=10, failed=10), MANIFEST)
    assert (parts.gaps(10), parts.num_failed()) == ([], 10)
    assert [failure.row for failure in parts.first_failures(3)] == [0, 1, 2]


@pytest.mark.parametrize("kept", [0, 100, 700])
def test_a_damaged_part_is_removed_and_named(parts: PartsFolder, kept: int) -> None:
    for first in (0, 2, 4):
        parts.write(part(first, failed=1), MANIFEST)
    path = parts.parts()[1]
    path.write_bytes(path.read_bytes()[:kept])
    assert (parts.gaps(6), parts.damaged) == ([Span(2, 4)], ["part-000000000002.parquet"])
    assert [path.name for path in parts.error_parts()] == ["part-000000000000.parquet", "part-000000000004.parquet"]


def test_failures_without_their_part_are_not_counted(parts: PartsFolder) -> None:
    parts.write(part(0, failed=1), MANIFEST)
    parts.parts()[0].unlink()  # a run that was killed between the two
    assert (parts.gaps(2), parts.num_failed()) == ([Span(0, 2)], 0)


def test_a_full_disk_says_how_to_go_on(parts: PartsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"part-000000000000\.parquet cannot be written: No space left.*--resume"):
        parts.write(part(0), MANIFEST)
    assert [path.name for path in parts.folder.iterdir()] == ["_mmalign.json"]


def test_a_claim_removes_what_a_killed_run_left_and_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    with claim(folder) as parts:
        parts.begin(MANIFEST)
        (folder / "_errors").mkdir()
    for name in (".part.parquet.abc.tmp", "_errors/.part.parquet.abc.tmp"):
        (folder / name).touch()
    with claim(folder) as parts:
        assert sorted(path.name for path in folder.rglob("*")) == [".lock", "_errors", "_mmalign.json"]
        parts.clear()
    assert not folder.exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"holds 'thesis\.docx', which no `mmalign embed` wrote"), claim(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"vectors cannot be written: Not a directory"),
        claim(tmp_path / "file" / "vectors"),
    ):
        pass


def test_folders_above_it_are_made(tmp_path: Path) -> None:
    with claim(tmp_path / "no" / "vectors") as parts:
        assert parts.folder.is_dir()


def test_a_hidden_file_of_the_users_own_stays(tmp_path: Path) -> None:
    folder = tmp_path / "sales[1].parquet.parts"
    with claim(folder) as parts:
        parts.begin(MANIFEST)
    leftovers = ("part-000000000004.parquet", "_mmalign.json", "sales[1].parquet", "sales[1].errors.parquet")
    for name in leftovers:
        (folder / f".{name}.k3x_9abc.tmp").touch()
    for name in (".notes.tmp", ".my.notes.tmp", ".gitignore"):
        (folder / name).touch()
    with claim(folder):
        pass
    kept = {path.name for path in folder.iterdir()}
    assert kept == {".notes.tmp", ".my.notes.tmp", ".gitignore", "_mmalign.json"}


def test_a_part_that_the_system_does_not_let_us_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(tmp_path / "vectors") as parts:
        parts.begin(MANIFEST)
        parts.write(part(0), MANIFEST)
        (path,) = parts.parts()

        def refuse(*arguments: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
        with pytest.raises(InputError, match=r"part-000000000000\.parquet cannot be read: Permission denied"):
            PartsFolder(parts.folder).gaps(10)
        assert (path.exists(), parts.damaged) == (True, [])
