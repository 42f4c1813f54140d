from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mmalign.dual_model import DualModel
from mmalign_export import export_model
from mmalign_export.errors import ExportError
from mmalign_export.to_onnx import OPSET_VERSION, export_onnx
from tests.export.own_modules import own_model
from tests.tolerances import FEATURES


def test_files_are_self_contained_with_dynamic_axes_and_the_fields_names(bundle_dir: Path) -> None:
    vision = onnx.load(bundle_dir / "onnx/vision_model.onnx", load_external_data=False)
    text = onnx.load(bundle_dir / "onnx/text_model.onnx", load_external_data=False)
    assert _axes(vision.graph.input[0]) == ["batch", 3, 64, 64]
    assert [value.name for value in text.graph.input] == ["input_ids", "attention_mask"]
    assert _axes(text.graph.input[0]) == ["batch", "length"]
    assert [vision.graph.output[0].name, text.graph.output[0].name] == ["image_embeds", "text_embeds"]
    assert not any(tensor.external_data for model in (vision, text) for tensor in model.graph.initializer)


def test_the_opset_is_the_one_asked_for(bundle_dir: Path) -> None:
    for name in ("vision_model", "text_model"):
        model = onnx.load(bundle_dir / f"onnx/{name}.onnx", load_external_data=False)
        assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET_VERSION]


@pytest.mark.parametrize("opset_version", [18, 21, 25])
def test_an_opset_that_is_asked_for_is_the_one_in_the_file_and_runs(
    model: DualModel, bundle_dir: Path, tmp_path: Path, opset_version: int
) -> None:
    path = bundle_dir / "onnx/text_model.onnx"  # which has the default
    if opset_version != OPSET_VERSION:
        path = tmp_path / "text_model.onnx"
        export_onnx(model.text, path, opset_version)
    written = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", opset_version)]
    assert written.ir_version == {18: 8, 21: 10, 25: 13}[opset_version]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids = np.array([[2, 5, 6, 3], [2, 7, 3, 0]], np.int64)
    mask = (ids > 0).astype(np.int64)
    with torch.inference_mode():
        expected = model.text.module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(found, expected, atol=FEATURES.bound)


@pytest.mark.parametrize("opset_version", [-1, 0, 7, 13, 17, 26, 99])
def test_an_opset_that_cannot_be_written_is_refused_before_anything_is_traced(
    model: DualModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset_version: int
) -> None:
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(ExportError, match=rf"with ONNX opset {opset_version}; expected 18 to 25"):
        export_onnx(model.text, tmp_path / "text_model.onnx", opset_version)
    with pytest.raises(ExportError, match=rf"with ONNX opset {opset_version}; expected 18 to 25"):
        export_model(model, tmp_path / "bundle", opset_version=opset_version)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_opset_than_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As torch does with an opset that its converter does not reach: it logs, and writes 18.
    honest = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: honest(*args, **kwargs | {"opset_version": 18}))
    with pytest.raises(ExportError, match=r"text_model\.onnx came out with opset 18, not 20 as asked"):
        export_onnx(own_model().text, tmp_path / "text_model.onnx", 20)
    assert list(tmp_path.iterdir()) == []


def test_a_tower_that_cannot_be_traced_is_an_error_that_says_so(model: DualModel, tmp_path: Path) -> None:
    class Asking(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values if pixel_values.sum().item() > 0 else -pixel_values

    tower = msgspec.structs.replace(model.image, backbone=Asking(), projection=torch.nn.Identity())
    with pytest.raises(ExportError, match="the tower of image_embeds cannot be written as ONNX"):
        export_onnx(tower, tmp_path / "vision_model.onnx")


def test_the_bundle_records_the_opset_of_its_files(tmp_path: Path) -> None:
    spec = export_model(own_model(), tmp_path / "bundle", opset_version=20)
    models = [onnx.load(tmp_path / "bundle" / spec.artifact(tower).file) for tower in ("image", "text")]
    assert [model.opset_import[0].version for model in models] == [20, 20]
    assert spec.provenance.opset_version == 20


def test_files_name_no_path_of_the_machine_that_exported_them(bundle_dir: Path) -> None:
    root = str(Path(__file__).resolve().parents[2]).encode()
    for path in (bundle_dir / "onnx").iterdir():
        contents = path.read_bytes()
        assert root not in contents
        assert b".py" not in contents


def _axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
