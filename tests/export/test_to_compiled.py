"""The compiled towers, held to the same parity as the ONNX files. They need a C++ compiler."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest
import torch

from mmalign.dual_model import DualModel
from mmalign_export import export_model
from mmalign_export.artifacts import torch_artifact
from mmalign_export.bundle import TOWER_FILES
from mmalign_export.errors import ParityError
from mmalign_export.parity import check_parity
from mmalign_export.to_compiled import load_aoti
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.spec import AOTINDUCTOR, TORCH_COMPILE

TOWERS = ("image", "text")

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which inductor compiles with")


@pytest.fixture(scope="module")
def compiled_dir(model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "bundle"
    export_model(model, out, formats=("onnx", "aoti", "compile"))
    return out


def test_all_three_formats_are_held_to_parity(compiled_dir: Path) -> None:
    spec = open_bundle(compiled_dir).spec
    kinds = ("onnx-fp32", "aotinductor-fp32", "torch.compile-fp32")
    assert [(each.kind, each.tower) for each in spec.artifacts] == [(kind, tower) for kind in kinds for tower in TOWERS]
    assert all(each.parity for each in spec.artifacts)
    assert {tower: spec.artifact(tower, engine=AOTINDUCTOR).file for tower in TOWERS} == TOWER_FILES[AOTINDUCTOR]
    assert {each.file for each in spec.artifacts if each.engine == TORCH_COMPILE} == {""}


def test_canary_packages_of_another_model_fail(compiled_dir: Path, model: DualModel) -> None:
    bundle = open_bundle(compiled_dir)
    golden = load_golden(bundle)
    image = load_aoti(compiled_dir / "aoti/vision_model.pt2")
    text = model.text.module

    def eager_text(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return cast("torch.Tensor", text(*inputs))

    honest = torch_artifact(AOTINDUCTOR, model, {"image": image, "text": eager_text})
    check_parity(honest, golden, compiled_dir)
    moved = torch_artifact(AOTINDUCTOR, model, {"image": lambda pixels: image(pixels.flip(1)), "text": eager_text})
    with pytest.raises(ParityError, match="image case"):
        check_parity(moved, golden, compiled_dir)


def test_packages_have_the_modules_signature(compiled_dir: Path, model: DualModel) -> None:
    tower = model.image
    (pixel_values,) = tower.example().inputs
    package = load_aoti(compiled_dir / "aoti/vision_model.pt2")
    assert package(pixel_values[:1]).shape == tower.module(pixel_values[:1]).shape
