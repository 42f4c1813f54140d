import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.errors import BundleError, BundleFormatError, BundleIntegrityError
from mmalign_runtime.spec import BundleSpec

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]


def text_model(bundle: Path) -> Path:
    return bundle / open_bundle(bundle).spec.artifact("text").file


def test_an_opened_bundle_names_the_files_it_lists(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    name = bundle.spec.towers["text"].tokenizer
    assert bundle.source(name) == tiny_bundle / name
    assert bundle.read(name) == (tiny_bundle / name).read_bytes()
    for read in (bundle.source, bundle.read):
        with pytest.raises(BundleIntegrityError, match=r"'secret\.txt' is not among the files"):
            read("secret.txt")


def test_a_folder_without_a_spec_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["photo.jpg", "weights.pt", "empty", "bundle.json"])
def test_a_file_that_is_no_archive_is_not_called_damaged(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name == "empty" else b"\xff\xd8\xff\xe0 a picture, not an archive")
    if name == "weights.pt":  # PyTorch's are zips too
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", b"weights")
    match = "Name its folder" if name == "bundle.json" else "is not a bundle: .*mmalign import MODEL --out BUNDLE"
    with pytest.raises(BundleError, match=match) as caught:
        open_bundle(path)
    assert not isinstance(caught.value, BundleIntegrityError)


def test_an_archive_opens_under_any_name(tiny_bundle: Path, tmp_path: Path) -> None:
    packed = pack_bundle(tiny_bundle, tmp_path / "tiny.mmalign")
    other = packed.rename(tmp_path / "tiny.v2")
    assert open_bundle(other).spec == open_bundle(tiny_bundle).spec


def test_an_edited_spec_is_refused(tiny_bundle: Path) -> None:
    path = tiny_bundle / "bundle.json"
    path.write_text(path.read_text().replace('"logit_scale": ', '"logit_scale": 9'))
    with pytest.raises(BundleFormatError, match="its seal does not fit"):
        open_bundle(tiny_bundle)


def test_one_changed_byte_is_found_unless_hashes_are_not_wanted(tiny_bundle: Path) -> None:
    path = text_model(tiny_bundle)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    found = sha256_of_file(path)[:12]
    with pytest.raises(BundleIntegrityError, match=rf"{path.name} was changed: its sha256 is {found}"):
        open_bundle(tiny_bundle)
    assert open_bundle(tiny_bundle, check_hashes=False)


def test_a_missing_file_is_named(tiny_bundle: Path) -> None:
    path = text_model(tiny_bundle)
    path.unlink()
    with pytest.raises(BundleIntegrityError, match=rf"{path.name} is missing"):
        open_bundle(tiny_bundle, check_hashes=False)


def test_a_linked_file_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    path = text_model(tiny_bundle)
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleIntegrityError, match="is a link"):
        open_bundle(tiny_bundle)


def test_a_linked_folder_inside_the_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = text_model(tiny_bundle).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleIntegrityError, match="is a link"):
        open_bundle(tiny_bundle)


def test_a_bundle_may_be_reached_through_a_link(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(tiny_bundle)
    assert open_bundle(tmp_path / "current").spec == open_bundle(tiny_bundle).spec


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a file's name be any bytes")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_folder_whose_name_is_not_utf8_gives_the_same_vectors(tiny_bundle: Path, tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    named = shutil.copytree(tiny_bundle, tmp_path / os.fsdecode(b"b\xfcndel"))
    with Embedder.load(tiny_bundle, engine=engine) as plain, Embedder.load(named, engine=engine) as other:
        np.testing.assert_array_equal(other.encode_text(["a fox"]), plain.encode_text(["a fox"]))
        image = named / "golden/RGBA.png"
        np.testing.assert_array_equal(other.encode_image([image]), plain.encode_image([image]))


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "onnx/../../outside", "..\\outside", "C:outside", "onnx//x", "./x", ""]
)
def test_a_file_outside_the_folder_is_refused(tiny_bundle: Path, edit_spec: SpecEdit, name: str) -> None:
    edit_spec(lambda spec: msgspec.structs.replace(spec, files={**spec.files, name: "0" * 64}))
    with pytest.raises(BundleIntegrityError, match="leaves the bundle"):
        open_bundle(tiny_bundle)


def test_a_model_that_is_not_offered_is_refused_with_what_is(tiny_bundle: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    assert spec.artifact("text", "fp32").file == "onnx/text_model.onnx"
    with pytest.raises(BundleError, match="the text tower has no int8 file; it offers fp32"):
        spec.artifact("text", "int8")


@pytest.mark.parametrize("field", ["golden", "towers.image.preprocess", "towers.text.tokenizer", "artifacts[0].file"])
def test_a_spec_that_names_a_file_it_does_not_list_is_refused(
    tiny_bundle: Path, edit_spec: SpecEdit, field: str
) -> None:
    spec = open_bundle(tiny_bundle).spec
    name = {
        "golden": spec.golden,
        "towers.image.preprocess": spec.towers["image"].preprocess,
        "towers.text.tokenizer": spec.towers["text"].tokenizer,
        "artifacts[0].file": spec.artifact("image").file,
    }[field]
    rest = {key: value for key, value in spec.files.items() if key != name}
    edit_spec(lambda spec: msgspec.structs.replace(spec, files=rest))
    with pytest.raises(BundleFormatError, match=rf"{re.escape(field)} is '{name}', which `files` does not list"):
        open_bundle(tiny_bundle)


def test_an_unlisted_file_in_a_folder_does_no_harm(tiny_bundle: Path) -> None:
    (tiny_bundle / ".DS_Store").write_bytes(b"x")
    assert open_bundle(tiny_bundle)
