from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from mmalign.run import Run
from mmalign_export.errors import ExportError
from mmalign_export.to_onnx import OPSET_VERSION, export_onnx
from mmalign_export.towers import image_tower


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


def test_files_name_no_path_of_the_machine_that_exported_them(bundle_dir: Path) -> None:
    root = str(Path(__file__).resolve().parents[2]).encode()
    for path in (bundle_dir / "onnx").iterdir():
        contents = path.read_bytes()
        assert root not in contents
        assert b".py" not in contents


def test_a_file_too_large_for_protobuf_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign_export.to_onnx._LARGEST_FILE_BYTES", 1000)
    with pytest.raises(ExportError, match="at most 1000 fit one ONNX file"):
        export_onnx(image_tower(run.model, run.config.image), tmp_path / "vision_model.onnx")
    assert list(tmp_path.iterdir()) == []


def _axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
