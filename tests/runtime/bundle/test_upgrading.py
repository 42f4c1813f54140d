import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.bundle import packing
from mmalign_runtime.bundle.packing import pack_bundle, upgrade_bundle
from mmalign_runtime.errors import BundleError, BundleIntegrityError, InputError
from mmalign_runtime.spec import SPEC_NAME, decode_spec
from mmalign_runtime.verify import verify_bundle

# Written once by `mmalign upgrade`, from the tiny bundle.
FORMAT_2 = Path(__file__).parents[1] / "fixtures" / "tiny_bundle_2.json"
TEXTS = ["a photo of a dog", "", "the quick brown fox jumps over the lazy dog " * 4]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(folder: Path) -> dict[str, object]:
    return msgspec.json.decode((folder / SPEC_NAME).read_bytes(), type=dict[str, object])


def vectors(path: Path) -> tuple[bytes, bytes]:
    with Embedder.load(path, provider="cpu", num_threads=1) as embedder:
        cases = ("golden/RGBA.png", "golden/progressive.jpg", "golden/EXIF_orientation_6.jpg")
        images = [embedder.bundle.source(name) for name in cases]
        return embedder.encode_image(images).tobytes(), embedder.encode_text(TEXTS).tobytes()


def test_a_folder_is_rewritten_where_it_is_and_means_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    old = open_bundle(tiny_bundle).spec
    expected, files = vectors(tiny_bundle), contents(tiny_bundle)
    assert upgrade_bundle(tiny_bundle) == tiny_bundle
    assert written(tiny_bundle)["format_version"] == "2.0"
    again = open_bundle(tiny_bundle).spec
    assert (again.space_id, again.variant_id("fp32")) == (old.space_id, old.variant_id("fp32"))
    assert msgspec.structs.replace(again, seal=old.seal) == old
    assert vectors(tiny_bundle) == expected
    found = contents(tiny_bundle)
    assert found.pop(SPEC_NAME) != files.pop(SPEC_NAME)
    assert found == files
    assert verify_bundle(tiny_bundle, provider="cpu").passed


def test_an_archive_is_rewritten_where_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    packed = pack_bundle(tiny_bundle, tmp_path / "tiny.mmalign")
    (tmp_path / "link.mmalign").symlink_to(packed)
    expected = vectors(packed)
    upgrade_bundle(tmp_path / "link.mmalign")
    assert (tmp_path / "link.mmalign").is_symlink()
    assert vectors(packed) == expected
    upgrade_bundle(tiny_bundle)
    assert pack_bundle(tiny_bundle, tmp_path / "other.mmalign").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize("source", ["bundle", "tiny.mmalign"])
@pytest.mark.parametrize("out", ["deep/new", "deep/new.mmalign"])
def test_another_place_leaves_the_bundle_as_it_was(tiny_bundle: Path, tmp_path: Path, source: str, out: str) -> None:
    pack_bundle(tiny_bundle, tmp_path / "tiny.mmalign")
    before = contents(tmp_path)
    assert upgrade_bundle(tmp_path / source, tmp_path / out) == tmp_path / out
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("deep")} == before
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [Path(out).name]
    assert open_bundle(tmp_path / out).spec.space_id == open_bundle(tiny_bundle).spec.space_id
    with pytest.raises(InputError, match=r"is there already\. Add --force"):
        upgrade_bundle(tmp_path / source, tmp_path / out)
    assert upgrade_bundle(tmp_path / source, tmp_path / out, force=True) == tmp_path / out


def test_a_bundle_of_this_format_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    upgrade_bundle(tiny_bundle)
    before = contents(tiny_bundle)
    assert upgrade_bundle(tiny_bundle) is None
    assert upgrade_bundle(tiny_bundle, tmp_path / "new") is None
    assert contents(tiny_bundle) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_bundle_is_refused_and_left_as_it_was(tiny_bundle: Path, tmp_path: Path, packed: bool) -> None:
    path = tiny_bundle / "onnx" / "text_model.onnx"
    bundle = pack_bundle(tiny_bundle, tmp_path / "tiny.mmalign") if packed else tiny_bundle
    target = bundle if packed else path
    raw = bytearray(target.read_bytes())
    raw[raw.index(path.read_bytes()) + 1000 if packed else 1000] ^= 4
    stamp = target.stat()
    target.write_bytes(raw)
    os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(BundleIntegrityError, match=r"text_model\.onnx was changed|text_model\.onnx cannot be read"):
        upgrade_bundle(bundle)
    assert target.read_bytes() == raw
    with pytest.raises(BundleError, match="there is no such file or folder"):
        upgrade_bundle(tmp_path / "nothing")


def test_a_write_that_fails_leaves_the_bundle_as_it_was(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(tiny_bundle)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"No space left on device.* Nothing was changed there"):
        packing.upgrade_bundle(tiny_bundle)
    monkeypatch.undo()
    assert contents(tiny_bundle) == before


def test_no_bit_of_an_upgraded_bundle_can_change_unseen(tiny_bundle: Path, tmp_path: Path) -> None:
    upgrade_bundle(tiny_bundle)
    rng = np.random.default_rng(0)
    for name in sorted(open_bundle(tiny_bundle).spec.files):
        changed = shutil.copytree(tiny_bundle, tmp_path / "changed")
        raw = bytearray((changed / name).read_bytes())
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        (changed / name).write_bytes(raw)
        with pytest.raises(BundleIntegrityError, match="was changed: its sha256 is"):
            open_bundle(changed)
        shutil.rmtree(changed)


def test_a_bundle_json_of_format_2_0_is_read_for_good(tiny_bundle: Path) -> None:
    committed, old = decode_spec(FORMAT_2.read_bytes()), open_bundle(tiny_bundle).spec
    assert msgspec.structs.replace(committed, seal=old.seal) == old
    (tiny_bundle / SPEC_NAME).write_bytes(FORMAT_2.read_bytes())
    assert open_bundle(tiny_bundle).space_id == old.space_id
