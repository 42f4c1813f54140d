"""Parity holds for what is equal, and what is not is named by its stage; test_parity_bounds has the canaries."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mmalign_export.errors import ParityError
from mmalign_export.parity import BATCH_SIZES, Artifact, check_parity, measure_parity, onnx_artifact
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import Golden, load_golden
from mmalign_runtime.verify import verify_bundle
from tests.export.canaries import reseal


@pytest.fixture
def golden(bundle_dir: Path) -> Golden:
    return load_golden(open_bundle(bundle_dir))


def test_the_bundle_equals_eager_pytorch_on_every_case_in_every_batch_size(bundle_dir: Path, golden: Golden) -> None:
    differences = measure_parity(onnx_artifact(Embedder.load(bundle_dir, provider="cpu")), golden, bundle_dir)
    assert {difference.batch_size for difference in differences} == set(BATCH_SIZES)
    compared = {(difference.kind, difference.case) for difference in differences}
    assert len(compared) == len(golden.images) + len(golden.texts)
    assert all(difference.within() for difference in differences)


def test_recorded_parity_counts_every_case(bundle_dir: Path, golden: Golden) -> None:
    spec = open_bundle(bundle_dir).spec
    assert [each.kind for each in spec.artifacts] == ["onnx-fp32", "onnx-fp32"]
    counted = {each.tower: each.parity.num_cases for each in spec.artifacts if each.parity}
    assert counted == {"image": len(golden.images), "text": len(golden.texts)}


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
