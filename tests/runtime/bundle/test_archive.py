import contextlib
import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.archive import ArchiveContents, frame_digest
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.errors import BundleIntegrityError
from mmalign_runtime.spec import SPEC_NAME

Edit = Callable[[zipfile.ZipFile], None]


@pytest.fixture
def archive(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle as one file."""
    return pack_bundle(tiny_bundle, tmp_path / "bundle.mmalign")


def seal(path: Path) -> None:
    """Write the frame's digest as the archive's comment, as whoever makes a harmful archive would."""
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"0" * 64
    with path.open("r+b") as raw, contextlib.suppress(zipfile.BadZipFile):  # some are refused before it counts
        with zipfile.ZipFile(path) as file:
            digest = frame_digest(raw, file.infolist())
        raw.seek(-64, 2)
        raw.write(digest.encode())


def make(path: Path, edit: Edit) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        edit(file)
    seal(path)
    return path


def test_an_archive_holds_the_very_files_of_the_folder(archive: Path, tiny_bundle: Path) -> None:
    folder, packed = open_bundle(tiny_bundle), open_bundle(archive)
    assert packed.spec == folder.spec
    assert packed.size_bytes() == folder.size_bytes()
    for name in folder.spec.files:
        assert packed.source(name) == packed.read(name) == folder.read(name)


def test_the_same_files_give_the_same_bytes(archive: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_bundle, tmp_path / "moved")
    assert pack_bundle(moved, tmp_path / "again.mmalign").read_bytes() == archive.read_bytes()
    assert pack_bundle(archive, tmp_path / "third.mmalign").read_bytes() == archive.read_bytes()


def test_every_kind_of_byte_is_guarded(archive: Path) -> None:
    whole = archive.read_bytes()
    for position in range(0, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        archive.write_bytes(damaged)
        with pytest.raises(BundleIntegrityError, match=r"bundle\.mmalign"):
            open_bundle(archive)


@pytest.mark.parametrize("length", [0, 1, 21, 22, 1000, -1, -64, -100])
def test_a_truncated_archive_is_named(archive: Path, length: int) -> None:
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(BundleIntegrityError, match=r"bundle\.mmalign: its directory cannot be read"):
        open_bundle(archive)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a\\b", "C:x", "a//b", "x\x01"])
def test_an_entry_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "slip.mmalign", lambda file: file.writestr(zipfile.ZipInfo(name), b"x"))
    with pytest.raises(BundleIntegrityError, match="leaves the bundle"):
        ArchiveContents(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    def twice(file: zipfile.ZipFile) -> None:
        file.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a", b"2")

    with pytest.raises(BundleIntegrityError, match="holds 'a' twice"):
        ArchiveContents(make(tmp_path / "twice.mmalign", twice))


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda file: file.writestr("a", b"0" * 999, zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda file: file.writestr(entry("a", stat.S_IFLNK | 0o777), b"/etc/hostname"), "is a link"),
        (lambda file: file.mkdir("a"), "is a folder"),
    ],
)
def test_what_is_not_plainly_stored_is_refused(tmp_path: Path, edit: Edit, fault: str) -> None:
    with pytest.raises(BundleIntegrityError, match=fault):
        ArchiveContents(make(tmp_path / "odd.mmalign", edit))


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "secret.mmalign", lambda file: file.writestr("a", b"x"))
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    path.write_bytes(raw)
    with pytest.raises(BundleIntegrityError, match="is encrypted"):
        ArchiveContents(path)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    def overlap(file: zipfile.ZipFile) -> None:
        file.writestr("a", b"x" * 50)
        file.writestr("b", b"y" * 50)

    path = make(tmp_path / "overlap.mmalign", overlap)
    raw = bytearray(path.read_bytes())
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 1)
    struct.pack_into("<I", raw, second + 42, 5)  # where its local header is said to lie
    path.write_bytes(raw)
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        ArchiveContents(path)


def test_an_unlisted_entry_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("stray.txt", b"x")
    seal(archive)
    with pytest.raises(BundleIntegrityError, match=rf"holds 'stray\.txt', which {SPEC_NAME} does not list"):
        open_bundle(archive)


def test_a_zip_made_by_another_tool_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    made = Path(shutil.make_archive(str(tmp_path / "other"), "zip", tiny_bundle))
    with pytest.raises(BundleIntegrityError, match=r"is a folder, expected a plain stored file\..*`mmalign pack`"):
        open_bundle(made)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mmalign"
    path.write_bytes(io.BytesIO(b"no zip").getvalue())
    with pytest.raises(BundleIntegrityError, match="File is not a zip file"):
        open_bundle(path)
