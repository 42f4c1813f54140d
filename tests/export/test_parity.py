"""Parity must hold for what is equal, and the canary must die: a check that cannot fail is a defect."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mmalign_export.artifacts import onnx_artifact
from mmalign_export.errors import ParityError
from mmalign_export.parity import BATCH_SIZES, Artifact, check_parity, measure_parity
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import Golden, load_golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import SPEC_NAME, encode_spec
from mmalign_runtime.verify import verify_bundle


@pytest.fixture
def golden(bundle_dir: Path) -> Golden:
    return load_golden(open_bundle(bundle_dir))


def test_the_bundle_equals_eager_pytorch_on_every_case_in_every_batch_size(bundle_dir: Path, golden: Golden) -> None:
    differences = measure_parity(onnx_artifact(bundle_dir), golden, bundle_dir)
    assert {difference.batch_size for difference in differences} == set(BATCH_SIZES)
    compared = {(difference.kind, difference.case) for difference in differences}
    assert len(compared) == len(golden.images) + len(golden.texts)
    assert all(difference.within() for difference in differences)


def test_recorded_parity_counts_every_case(bundle_dir: Path, golden: Golden) -> None:
    (parity,) = open_bundle(bundle_dir).spec.parity
    assert parity.artifact == "onnx-fp32"
    assert parity.num_cases == len(golden.images) + len(golden.texts)


@pytest.mark.parametrize("model", ["onnx/vision_model.onnx", "onnx/text_model.onnx"])
def test_canary_one_weight_moved_fails_parity_and_verify(
    bundle_dir: Path, golden: Golden, tmp_path: Path, model: str
) -> None:
    canary = tmp_path / "canary"
    shutil.copytree(bundle_dir, canary)
    move_one_weight(canary / model)
    reseal(canary)
    with pytest.raises(ParityError, match=r"onnx-fp32 differs from eager PyTorch .* cosine 0\.\d+"):
        check_parity(onnx_artifact(canary), golden, canary)
    report = verify_bundle(canary, provider="cpu")
    assert not report.passed
    assert {case.stage for case in report.cases if not case.passed} == {"tower"}


def test_a_changed_normalisation_is_named_as_preprocess(bundle_dir: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(bundle_dir, changed)
    path = changed / "onnx/image_preprocess.onnx"
    model = onnx.load(path)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.1), "scale"))
    onnx.save(model, path)
    reseal(changed)
    report = verify_bundle(changed, provider="cpu")
    failed = {case.name: case.stage for case in report.cases if not case.passed}
    assert failed["landscape 3x2"] == "preprocess"
    assert not any(case.kind == "text" for case in report.cases if not case.passed)


def test_a_changed_tokenizer_is_named_as_tokenize(bundle_dir: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(bundle_dir, changed)
    path = changed / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    reseal(changed)
    failed = {case.name: case.stage for case in verify_bundle(changed, provider="cpu").cases if not case.passed}
    assert failed["capitals and digits"] == "tokenize"


def test_a_wrong_shape_or_a_nan_is_a_parity_error(golden: Golden, tmp_path: Path) -> None:
    def nothing(items: Sequence[object]) -> NDArray[np.float32]:
        return np.full((len(items), 16), np.nan, np.float32)

    with pytest.raises(ParityError, match="finite: False"):
        check_parity(Artifact("broken", nothing, nothing), golden, tmp_path)


def test_no_case_proves_nothing(tmp_path: Path) -> None:
    def unused(items: Sequence[object]) -> NDArray[np.float32]:
        raise AssertionError("called without a case")

    with pytest.raises(ParityError, match="no golden case was compared"):
        check_parity(Artifact("empty", unused, unused), Golden(images=(), texts=()), tmp_path)


def move_one_weight(path: Path) -> None:
    """Move one number of the largest tensor: the smallest damage a file can take and still load."""
    model = onnx.load(path)
    tensor = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and "proj" in t.name),
        key=lambda t: np.prod(t.dims),
    )
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def reseal(folder: Path) -> None:
    """Give a changed bundle the hashes of its changed files: only a comparison of vectors can find the change."""
    spec = open_bundle(folder, check_hashes=False).spec
    files = {name: sha256_of_file(folder / name) for name in spec.files}
    (folder / SPEC_NAME).write_bytes(encode_spec(msgspec.structs.replace(spec, files=files)))
