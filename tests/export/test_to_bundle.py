from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.data import Origin, Pair
from mmalign.dual_model import DualModel, ModelTower
from mmalign.errors import CheckpointError
from mmalign.evaluation import evaluate
from mmalign.run import Run
from mmalign.space import space_id
from mmalign_export import read_source
from mmalign_export.errors import ExportError, ParityError
from mmalign_export.sources import SourceOptions
from mmalign_export.to_bundle import _card_pictures, export, export_model
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.spec import Similarity
from tests.export.canaries import move_one_weight, step_for
from tests.export.own_modules import own_model


def test_the_runtime_gives_pytorchs_vectors_for_an_image_and_a_text(
    bundle_dir: Path, run: Run, model: DualModel
) -> None:
    embedder = Embedder.load(bundle_dir, provider="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (51, 37, 3), dtype=np.uint8)
    tokens = model.text.bound_tokenizer.encode(["a quick dog"])
    with torch.inference_mode():
        image = run.model.encode_image(torch.from_numpy(model.image.preprocess(pixels)))
        text = run.model.encode_text(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))
    np.testing.assert_allclose(embedder.encode_image([pixels]), image.numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.encode_text(["a quick dog"]), text.numpy(), atol=1e-5)


def test_every_file_is_hashed_and_the_ids_fit(bundle_dir: Path, model: DualModel) -> None:
    spec = open_bundle(bundle_dir).spec
    on_disk = {path.relative_to(bundle_dir).as_posix() for path in bundle_dir.rglob("*") if path.is_file()}
    assert on_disk == {*spec.files, "bundle.json"}
    assert spec.space_id == space_id(model)
    assert spec.similarity == Similarity(kind="softmax", scale=pytest.approx(1 / 0.07), bias=0.0)


@pytest.mark.usefixtures("traced_once")
def test_an_export_can_be_one_file(tmp_path: Path) -> None:
    out, folder = tmp_path / "one" / "bundle.mmalign", tmp_path / "folder"
    for place in (out, folder):
        export_model(own_model(), place)
    assert list(out.parent.iterdir()) == [out]
    assert open_bundle(out).spec.space_id == open_bundle(folder).spec.space_id
    vectors = [Embedder.load(path, provider="cpu").encode_text(["a dog"]) for path in (out, folder)]
    np.testing.assert_array_equal(*vectors)


def test_the_card_tells_parity_latency_and_licence(bundle_dir: Path) -> None:
    card = (bundle_dir / "README.md").read_text()
    for heading in ("## Use", "## Parity", "## Recall", "## Latency", "## Origin"):
        assert heading in card
    assert "onnx-fp32" in card


def test_the_card_times_pictures_of_a_usual_size_first(bundle_dir: Path) -> None:
    golden = load_golden(open_bundle(bundle_dir))
    files = _card_pictures(golden)
    assert len(files) == 8
    assert max(case.height * case.width for case in golden.images if case.file in files) <= 1_000_000
    large = tuple(case for case in golden.images if case.height * case.width > 1_000_000)
    assert _card_pictures(msgspec.structs.replace(golden, images=large)) == [case.file for case in large]


@pytest.mark.usefixtures("traced_once")
def test_own_images_and_captions_join_the_golden_cases(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    pair = Pair(tmp_path / "red.png", ("a red thing",), "red", Origin(tmp_path / "pairs.csv", line=2))
    export_model(msgspec.structs.replace(own_model(), own_pairs=(pair,)), tmp_path / "bundle")
    cases = json.loads((tmp_path / "bundle/golden/cases.json").read_text())
    assert cases["images"][-1]["name"] == "own image 1"
    assert cases["texts"][-1]["text"] == "a red thing"


@pytest.mark.usefixtures("traced_once")
def test_a_damaged_image_among_the_first_is_passed_over_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(buffer, "JPEG")
    origin = Origin(tmp_path / "pairs.parquet", row=1)
    pairs = [Pair(data, (name,), name, origin) for name, data in (("cut", buffer.getvalue()[:90]), ("b", b"P9"))]
    pairs.append(Pair(buffer.getvalue(), ("whole",), "whole", origin))
    export_model(msgspec.structs.replace(own_model(), own_pairs=tuple(pairs)), tmp_path / "bundle")
    cases = json.loads((tmp_path / "bundle/golden/cases.json").read_text())
    assert [case["name"] for case in cases["images"] if case["name"].startswith("own")] == ["own image 1"]
    assert [case["text"] for case in cases["texts"] if case["name"].startswith("own")] == ["whole"]
    assert caplog.text.count("not taken as a golden case: ") == 2


def own_cases(bundle: Path) -> list[tuple[str, str]]:
    cases = json.loads((bundle / "golden/cases.json").read_text())
    images = [(case["name"], case["pixels_sha256"]) for case in cases["images"]]
    texts = [(case["name"], case["text"]) for case in cases["texts"]]
    return [case for case in images + texts if case[0].startswith("own")]


@pytest.mark.usefixtures("traced_once")
def test_a_run_exports_the_same_bundle_with_and_without_its_data(
    trained: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, data = trained
    export(run_dir, tmp_path / "with")
    old = tmp_path / "old"
    shutil.copytree(run_dir, old)
    (old / "own_pairs.msgpack").unlink()  # as versions before this one left it
    export(old, tmp_path / "from data")
    away = data.rename(tmp_path / "away")
    try:
        export(run_dir, tmp_path / "without")
        assert "own, since its data cannot be read" not in caplog.text
        export(old, tmp_path / "none")
    finally:
        away.rename(data)
    assert len(own_cases(tmp_path / "with")) == 8
    assert own_cases(tmp_path / "without") == own_cases(tmp_path / "with") == own_cases(tmp_path / "from data")
    assert "the golden cases have no pairs of the run's own, since its data cannot be read" in caplog.text
    assert own_cases(tmp_path / "none") == []


@pytest.mark.parametrize("contents", [b"", b"{", b'{"split": "test"}'])
def test_a_damaged_evaluation_is_told_before_anything_is_exported(
    trained: tuple[Path, Path], tmp_path: Path, contents: bytes
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_bytes(contents)
    with pytest.raises(CheckpointError, match=r"evaluation\.json cannot be read: .*Run `mmalign evaluate"):
        export(tmp_path / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_card_has_figures_of_the_weights_that_are_exported_alone(
    trained: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    of_last = evaluate(run_dir, split="val", checkpoint="last")
    assert read_source("run", run_dir, SourceOptions(checkpoint="last")).model.evaluation == of_last
    assert "is of other weights" not in caplog.text
    assert read_source("run", run_dir).model.evaluation is None
    assert "evaluation.json is of other weights than best.safetensors has" in caplog.text
    before = msgspec.structs.replace(of_last, checkpoint="best", weights_sha256="0" * 64)  # of an earlier best
    for found, kept in ((before, None), (msgspec.structs.replace(before, weights_sha256=None), "best")):
        (run_dir / "evaluation.json").write_bytes(msgspec.json.encode(found))
        read = read_source("run", run_dir).model.evaluation
        assert (read and read.checkpoint) == kept


def test_a_place_that_is_taken_is_refused_before_the_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(ExportError, match="--force"):
        export(tmp_path / "no run", tmp_path / "bundle")


@pytest.mark.usefixtures("traced_once")
def test_an_export_that_differs_just_outside_the_bound_fails_and_leaves_nothing(
    model: DualModel, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmalign_export import to_bundle

    honest = to_bundle.export_onnx
    step = step_for(bundle_dir, "image", 1.1e-4, tmp_path / "tried")

    def damaging(tower: ModelTower, path: Path, opset_version: int, largest_file_bytes: int) -> int:
        written = honest(tower, path, opset_version, largest_file_bytes)
        if path.name == "vision_model.onnx":
            move_one_weight(path, step)
        return written

    monkeypatch.setattr(to_bundle, "export_onnx", damaging)
    with pytest.raises(ParityError, match=r"image case .* max abs 1\.[01]\de-04 .*No bundle was written"):
        export_model(model, tmp_path / "exported/bundle")
    assert list((tmp_path / "exported").iterdir()) == []


@pytest.mark.usefixtures("traced_once")
def test_a_bundle_in_the_way_is_kept_unless_forced(tmp_path: Path) -> None:
    model, out = own_model(), tmp_path / "bundle"
    out.mkdir()
    (out / "bundle.json").write_text("{}")
    with pytest.raises(ExportError, match="--force"):
        export_model(model, out)
    assert (out / "bundle.json").read_text() == "{}"
    export_model(model, out, force=True)
    assert open_bundle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_two_exports_of_one_run_are_one_space(bundle_dir: Path, model: DualModel, tmp_path: Path) -> None:
    again = export_model(model, tmp_path / "again")
    first = open_bundle(bundle_dir).spec
    assert again.space_id == first.space_id
    assert again.variant_id("fp32") == first.variant_id("fp32")
    assert msgspec.structs.replace(again, provenance=first.provenance, artifacts=(), files={}, seal="") == (
        msgspec.structs.replace(first, artifacts=(), files={}, seal="")
    )
