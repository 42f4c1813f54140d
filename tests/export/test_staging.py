from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path

import pytest

from mmalign_export.errors import ExportError
from mmalign_export.staging import staged
from mmalign_runtime.spec import SPEC_NAME
from tests.trials import killed, num_trials


def make_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    (path / SPEC_NAME).write_text("{}")
    return path


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ExportError, match=r"a folder of something else: it has no bundle\.json"),
        staged(home, force=True),
    ):
        pytest.fail("the block must not run")
    assert (home / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_a_staged_folder_takes_the_old_ones_place_and_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    out = make_folder(tmp_path / "bundle", "old")
    monkeypatch.setattr("mmalign_runtime.staging.sys.platform", platform)
    with staged(out, force=True) as stage:
        (stage / "file").write_text("new")
        assert (out / "file").read_text() == "old"
    assert (out / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_at_the_place_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    target, out = make_folder(tmp_path / "target", "old"), tmp_path / "bundle"
    out.symlink_to(target)
    with staged(out, force=True) as stage:
        (stage / "file").write_text("new")
    assert not out.is_symlink()
    assert (out / "file").read_text() == "new"
    assert (target / "file").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [out, target]


def test_a_full_disk_is_named_and_leaves_the_old_folder(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "bundle", "old")
    with pytest.raises(ExportError, match="bundle cannot be written: No space left"), staged(out, force=True):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (out / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_block_that_raises_leaves_the_old_folder(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "bundle", "old")
    with pytest.raises(RuntimeError, match="export failed"), staged(out, force=True):
        raise RuntimeError("export failed")
    assert (out / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "bundle", "old")
    make_folder(tmp_path / ".bundle.abc.staged", "half")
    make_folder(tmp_path / ".other.abc.staged", "another bundle's")
    with staged(out, force=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abc.staged", "bundle"]


@pytest.mark.skipif(os.name == "nt", reason="folders are not locked on Windows")
def test_killed_at_any_moment_there_is_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    out, draw = make_folder(tmp_path / "bundle", "0"), random.Random(0)

    def replace(_: int) -> None:
        with staged(out, force=True) as stage:
            for name in ("file", "other", SPEC_NAME):
                (stage / name).write_text(f"{int((out / 'file').read_text()) + 1}")

    for _ in range(num_trials(12)):
        killed(replace, draw.uniform(0, 0.02))
        assert len({path.read_text() for path in out.iterdir() if path.name != SPEC_NAME}) == 1
    replace(0)
    assert int((out / "file").read_text()) > 1, "nothing was written before a kill"
    assert list(tmp_path.iterdir()) == [out]  # what the killed ones left is gone


@pytest.mark.skipif(os.name == "nt", reason="folders are not locked on Windows")
def test_a_disk_that_is_full_leaves_the_old_folder(small_disk: Path) -> None:
    out = make_folder(small_disk / "bundle", "old")
    with pytest.raises(ExportError, match="bundle cannot be written: No space left"), staged(out, force=True) as stage:
        (stage / "file").write_bytes(bytes(400_000))
    assert (out / "file").read_text() == "old"
    assert list(small_disk.iterdir()) == [out]


@pytest.mark.skipif(os.name == "nt", reason="folders are not locked on Windows")
def test_what_another_export_is_writing_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with staged(out, force=True) as first:
        with staged(out, force=True) as second:
            (second / "file").write_text("second")
        assert first.is_dir()
        (first / "file").write_text("first")
    assert (out / "file").read_text() == "first"


def test_an_existing_folder_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "bundle", "old")
    with pytest.raises(ExportError, match="exists already"), staged(out, force=False):
        pass


def test_a_file_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    with (
        pytest.raises(
            ExportError,
            match=r"is a file, and the bundle would be written as the other kind\. Choose an --out that ends",
        ),
        staged(thesis, force=True),
    ):
        pytest.fail("the block must not run")
    assert thesis.read_text() == "years of work"


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"), staged(tmp_path / "file" / "bundle", force=False):
        pytest.fail("the block must not run")


def test_a_bundle_that_another_export_finished_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(ExportError, match=r"exists already\. Add --force"), staged(out, force=False) as stage:
        (stage / "file").write_text("second")
        make_folder(out, "first")
    assert (out / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


def test_a_url_does_not_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ExportError, match="is not a path on this machine"),
        staged(Path("s3://bucket/bundle"), force=False),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []
