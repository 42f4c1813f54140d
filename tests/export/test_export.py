from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.data import Origin, Pair
from mmalign.fingerprint import space_id
from mmalign.run import Run
from mmalign_export import export_model
from mmalign_export.errors import ExportError, ParityError
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from tests.export.canaries import move_one_weight, step_for


def test_the_runtime_gives_pytorchs_vectors_for_an_image_and_a_text(bundle_dir: Path, run: Run) -> None:
    embedder = Embedder.load(bundle_dir, provider="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (51, 37, 3), dtype=np.uint8)
    tokens = run.text_tokenizer().encode(["a quick dog"])
    with torch.inference_mode():
        image = run.model.encode_image(torch.from_numpy(run.preprocessor()(pixels)))
        text = run.model.encode_text(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))
    np.testing.assert_allclose(embedder.encode_image([pixels]), image.numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.encode_text(["a quick dog"]), text.numpy(), atol=1e-5)


def test_every_file_is_hashed_and_the_ids_fit(bundle_dir: Path, run: Run) -> None:
    spec = open_bundle(bundle_dir).spec
    on_disk = {path.relative_to(bundle_dir).as_posix() for path in bundle_dir.rglob("*") if path.is_file()}
    assert on_disk == {*spec.files, "bundle.json"}
    assert spec.space_id == space_id(run.model, run.config.image, run.config.text, run.tokenizer)
    assert spec.logit_scale == pytest.approx(1 / 0.07)


def test_an_export_can_be_one_file(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle.mmalign"
    export_model(run, (), out)
    assert list(tmp_path.iterdir()) == [out]
    assert open_bundle(out).spec.space_id == open_bundle(bundle_dir).spec.space_id
    vectors = [Embedder.load(path, provider="cpu").encode_text(["a dog"]) for path in (out, bundle_dir)]
    np.testing.assert_array_equal(*vectors)


def test_the_card_tells_parity_latency_and_licence(bundle_dir: Path) -> None:
    card = (bundle_dir / "README.md").read_text()
    for heading in ("## Use", "## Parity", "## Recall", "## Latency", "## Origin"):
        assert heading in card
    assert "onnx-fp32" in card


def test_own_images_and_captions_join_the_golden_cases(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    pair = Pair(tmp_path / "red.png", ("a red thing",), "red", Origin(tmp_path / "pairs.csv", line=2))
    export_model(run, (pair,), tmp_path / "bundle")
    cases = json.loads((tmp_path / "bundle/golden/cases.json").read_text())
    assert cases["images"][-1]["name"] == "own image 1"
    assert cases["texts"][-1]["text"] == "a red thing"


def test_an_export_that_differs_just_outside_the_bound_fails_and_leaves_nothing(
    run: Run, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mmalign_export.export as export

    honest = export.export_onnx
    step = step_for(bundle_dir, "image", 1.1e-4, tmp_path / "tried")

    def damaging(tower: object, path: Path, opset_version: int) -> None:
        honest(tower, path, opset_version)  # type: ignore[arg-type]
        if path.name == "vision_model.onnx":
            move_one_weight(path, step)

    monkeypatch.setattr(export, "export_onnx", damaging)
    with pytest.raises(ParityError, match=r"image case .* max abs 1\.[01]\de-04 .*No bundle was written"):
        export_model(run, (), tmp_path / "exported/bundle")
    assert list((tmp_path / "exported").iterdir()) == []


def test_a_bundle_in_the_way_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "bundle.json").write_text("{}")
    with pytest.raises(ExportError, match="--force"):
        export_model(run, (), out)
    assert (out / "bundle.json").read_text() == "{}"
    export_model(run, (), out, force=True)
    assert open_bundle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_two_exports_of_one_run_are_one_space(bundle_dir: Path, run: Run, tmp_path: Path) -> None:
    again = export_model(run, (), tmp_path / "again")
    first = open_bundle(bundle_dir).spec
    assert again.space_id == first.space_id
    assert again.variant_id("fp32") == first.variant_id("fp32")
    assert msgspec.structs.replace(again, provenance=first.provenance, parity=(), files={}, seal="") == (
        msgspec.structs.replace(first, parity=(), files={}, seal="")
    )
