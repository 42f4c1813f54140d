from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.bundle.packing import pack_bundle, unpack_bundle
from mmalign_runtime.errors import BundleIntegrityError, InputError
from mmalign_runtime.verify import verify_bundle


def test_a_packed_bundle_embeds_and_verifies_as_the_folder_does(tiny_bundle: Path, tmp_path: Path) -> None:
    archive = pack_bundle(tiny_bundle, tmp_path / "bundle.mmalign")
    with Embedder.load(tiny_bundle, provider="cpu") as folder, Embedder.load(archive, provider="cpu") as packed:
        files = [tiny_bundle / case.file for case in load_golden(folder.bundle).images[:3]]
        np.testing.assert_array_equal(packed.encode_image(files), folder.encode_image(files))
        np.testing.assert_array_equal(packed.encode_text(["a dog"]), folder.encode_text(["a dog"]))
        assert packed.variant_id == folder.variant_id
    assert verify_bundle(archive, provider="cpu", against=tiny_bundle).passed


def test_unpacking_gives_the_folder_back(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = unpack_bundle(pack_bundle(tiny_bundle, tmp_path / "b.mmalign"), tmp_path / "again")
    for path in tiny_bundle.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(tiny_bundle)).read_bytes() == path.read_bytes()


def test_a_damaged_bundle_is_not_packed(tiny_bundle: Path, tmp_path: Path) -> None:
    (tiny_bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleIntegrityError, match=r"tokenizer\.json was changed"):
        pack_bundle(tiny_bundle, tmp_path / "bundle.mmalign")
    assert not (tmp_path / "bundle.mmalign").exists()


def test_what_is_there_is_not_written_over(tiny_bundle: Path, tmp_path: Path) -> None:
    archive = pack_bundle(tiny_bundle, tmp_path / "bundle.mmalign")
    with pytest.raises(InputError, match="is there already"):
        pack_bundle(tiny_bundle, archive)
    with pytest.raises(InputError, match="is there already"):
        unpack_bundle(archive, tiny_bundle)
    assert pack_bundle(tiny_bundle, archive, force=True) == archive


def test_another_suffix_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in '\.zip', expected \.mmalign"):
        pack_bundle(tiny_bundle, tmp_path / "bundle.zip")
