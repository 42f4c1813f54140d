"""What quantizing adds to a bundle is held to bounds of its own, and leaves all else as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mmalign_export.errors import ExportError, QuantizationError
from mmalign_export.quantization.report import QuantizationReport
from mmalign_export.quantization.variant import add_variant
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.cli import main
from mmalign_runtime.errors import BundleError, BundleIntegrityError
from mmalign_runtime.spec import Artifact, BundleSpec, Modality, Parity, encode_spec
from mmalign_runtime.verify import verify_bundle
from tests.export.canaries import reseal
from tests.export.quantization.tiny_models import make_report
from tests.tolerances import PADDING_INVARIANCE

FILES: dict[Modality, str] = {"image": "onnx/vision_model_int8.onnx", "text": "onnx/text_model_int8.onnx"}
# Which input of a node is the scale of its weights, a number a column.
SCALE_AT = {"MatMulIntegerToFloat": (3,), "DequantizeLinear": (1,)}
TITLE = "## Quantized to eight bits"


@pytest.fixture
def copied(quantized_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(quantized_dir, tmp_path / "copied")
    return tmp_path / "copied"


def spec_of(path: Path) -> BundleSpec:
    return open_bundle(path).spec


def test_the_bundle_verifies_in_eight_bits(quantized_dir: Path) -> None:
    report = verify_bundle(quantized_dir, provider="cpu", precision="int8")
    assert report.passed
    assert {case.kind for case in report.cases} == {"image", "text"}
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(quantized_dir), "--provider", "cpu", "--precision", "int8"])
    assert stop.value.code == 0


def test_vectors_of_eight_bits_are_near_and_not_the_same(quantized_dir: Path) -> None:
    vectors = {
        precision: Embedder.load(quantized_dir, provider="cpu", precision=precision).encode_text(["a dog"])
        for precision in ("fp32", "int8")
    }
    assert float((vectors["fp32"] * vectors["int8"]).sum()) > 0.99
    assert np.abs(vectors["fp32"] - vectors["int8"]).max() > 1e-4


def test_float32_is_as_it_was_to_the_bit(bundle_dir: Path, quantized_dir: Path) -> None:
    assert verify_bundle(quantized_dir, provider="cpu").passed
    pixels = np.random.default_rng(0).integers(0, 256, (51, 37, 3), dtype=np.uint8)
    before, after = (Embedder.load(path, provider="cpu") for path in (bundle_dir, quantized_dir))
    np.testing.assert_array_equal(before.encode_text(["a dog", "fox"]), after.encode_text(["a dog", "fox"]))
    np.testing.assert_array_equal(before.encode_image([pixels]), after.encode_image([pixels]))


def test_space_stays_and_variants_differ(bundle_dir: Path, quantized_dir: Path) -> None:
    before, after = spec_of(bundle_dir), spec_of(quantized_dir)
    assert after.space_id == before.space_id
    assert after.variant_id("fp32") == before.variant_id("fp32")
    assert after.variant_id("int8") != after.variant_id("fp32")
    assert (before.precisions(), after.precisions()) == (("fp32",), ("fp32", "int8"))


def test_files_are_those_that_the_spec_lists(bundle_dir: Path, quantized_dir: Path) -> None:
    spec = spec_of(quantized_dir)
    on_disk = {path.relative_to(quantized_dir).as_posix() for path in quantized_dir.rglob("*") if path.is_file()}
    assert on_disk == {*spec.files, "bundle.json"}
    added = {*FILES.values(), "golden/cases_int8.json", "quantization.json", "quantization.svg"}
    assert spec.files.keys() - spec_of(bundle_dir).files.keys() == added
    report = msgspec.json.decode((quantized_dir / "quantization.json").read_bytes(), type=QuantizationReport)
    assert report == make_report("image", "text")


def test_bounds_are_wider_than_what_was_measured_and_narrower_than_anything(quantized_dir: Path) -> None:
    spec = spec_of(quantized_dir)
    assert [each.kind for each in spec.artifacts] == ["onnx-fp32"] * 2 + ["onnx-int8"] * 2
    for tower in ("image", "text"):
        bounds_are_narrow(spec.artifact(tower, "int8").parity, spec.artifact(tower).parity)


def bounds_are_narrow(int8: Parity | None, fp32: Parity | None) -> None:
    assert int8 is not None
    assert fp32 is not None
    assert int8.num_cases == fp32.num_cases
    assert 0.9 < int8.min_cosine < 1
    assert 0.9 < int8.cosine_bound < 1
    assert 0 < int8.max_abs_difference < 0.2
    assert 0 < int8.abs_bound < 0.2


def test_eight_bits_are_held_to_vectors_of_their_own(quantized_dir: Path) -> None:
    with Embedder.load(quantized_dir, provider="cpu", precision="int8") as embedder:
        own = load_golden(embedder.bundle, embedder.bundle.spec.artifact("image", "int8").golden)
        vectors = embedder.encode_image([embedder.bundle.source(case.file) for case in own.images])
        expected = np.array([case.embedding for case in own.images], np.float32)
        np.testing.assert_allclose(vectors, expected, atol=PADDING_INVARIANCE.bound)
        assert own != load_golden(embedder.bundle)
        assert embedder.bundle.spec.artifact("image").golden is None


@pytest.mark.parametrize("tower", FILES)
def test_a_flipped_byte_is_found(copied: Path, tower: Modality) -> None:
    path = copied / FILES[tower]
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    with pytest.raises(BundleIntegrityError, match=FILES[tower]):
        verify_bundle(copied, provider="cpu", precision="int8")


@pytest.mark.parametrize("tower", FILES)
def test_canary_scaled_weights_fail_the_bounds_of_eight_bits_alone(copied: Path, tower: Modality) -> None:
    scale_weights(copied / FILES[tower])
    reseal(copied)
    report = verify_bundle(copied, provider="cpu", precision="int8")
    failed = [case for case in report.cases if not case.passed]
    assert {(case.kind, case.stage) for case in failed} == {(tower, "tower")}
    assert verify_bundle(copied, provider="cpu").passed


def test_vectors_farther_from_pytorch_than_the_floor_do_not_verify(copied: Path) -> None:
    spec = spec_of(copied)
    assert {each.parity.least_cosine for each in spec.artifacts if each.parity} == {0.97}
    artifacts = tuple(strict(each) if each.precision == "int8" else each for each in spec.artifacts)
    (copied / "bundle.json").write_bytes(encode_spec(msgspec.structs.replace(spec, artifacts=artifacts)))
    failed = [case for case in verify_bundle(copied, provider="cpu", precision="int8").cases if not case.passed]
    assert {case.kind for case in failed} == {"image", "text"}
    assert all("to PyTorch's vector, expected at least 1" in case.detail for case in failed)
    assert verify_bundle(copied, provider="cpu").passed


def strict(artifact: Artifact) -> Artifact:
    assert artifact.parity is not None
    parity = msgspec.structs.replace(artifact.parity, least_cosine=1.0, cosine_bound=1 - 1e-6)
    return msgspec.structs.replace(artifact, parity=parity)


def test_what_an_engine_takes_farther_than_the_floor_is_refused(
    bundle_dir: Path, int8_models: dict[Modality, bytes], tmp_path: Path
) -> None:
    report = msgspec.structs.replace(make_report("image"), least_golden_cosine=1.0)
    model = onnx.load_from_string(int8_models["image"])
    onnx.save(model, tmp_path / "model.onnx")
    scale_weights(tmp_path / "model.onnx")
    far = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(QuantizationError, match=r"over the image golden cases is 0\.\d+, expected at least 1"):
        add_variant(open_bundle(bundle_dir), {"image": far}, report, tmp_path / "out", force=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changed", [lambda path: path.write_bytes(b"no model"), lambda path: path.unlink()], ids=["damaged", "missing"]
)
def test_a_file_that_is_no_model_is_an_error(copied: Path, changed: Callable[[Path], object]) -> None:
    changed(copied / FILES["text"])
    with pytest.raises(BundleError, match=FILES["text"]):
        Embedder.load(copied, provider="cpu", precision="int8")


def test_quantizing_again_replaces(copied: Path, int8_models: dict[Modality, bytes]) -> None:
    before = spec_of(copied)
    again = add_variant(open_bundle(copied), int8_models, make_report("image", "text"), copied, force=True)
    assert [each.kind for each in again.artifacts] == ["onnx-fp32"] * 2 + ["onnx-int8"] * 2
    assert again.files == before.files
    assert (copied / "README.md").read_text().count(TITLE) == 1
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_a_tower_that_is_not_quantized_again_loses_its_file(copied: Path, int8_models: dict[Modality, bytes]) -> None:
    add_variant(open_bundle(copied), {"text": int8_models["text"]}, make_report("text"), copied, force=True)
    assert not (copied / FILES["image"]).exists()
    assert FILES["image"] not in spec_of(copied).files


def test_one_tower_alone_is_served_alone(bundle_dir: Path, int8_models: dict[Modality, bytes], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    add_variant(open_bundle(bundle_dir), {"image": int8_models["image"]}, make_report("image"), out, force=False)
    with pytest.raises(BundleError, match="the text tower has no int8 file; it offers fp32"):
        Embedder.load(out, provider="cpu", precision="int8")
    embedder = Embedder.load(out, provider="cpu", precision="int8", towers=["image"], verify="golden")
    assert embedder.encode_image([np.zeros((20, 20, 3), np.uint8)]).shape == (1, 16)


def test_an_archive_goes_in_and_comes_out(
    quantized_dir: Path, bundle_dir: Path, int8_models: dict[Modality, bytes], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        main(["pack", str(bundle_dir), "--out", str(tmp_path / "before.mmalign")])
    out = tmp_path / "after.mmalign"
    source = open_bundle(tmp_path / "before.mmalign")
    add_variant(source, int8_models, make_report("image", "text"), out, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.mmalign", "before.mmalign"]
    vectors = [
        Embedder.load(path, provider="cpu", precision="int8").encode_text(["a dog"]) for path in (out, quantized_dir)
    ]
    np.testing.assert_array_equal(*vectors)


def test_a_bundle_in_the_way_is_kept_unless_forced(
    bundle_dir: Path, copied: Path, int8_models: dict[Modality, bytes]
) -> None:
    before = (copied / "bundle.json").read_bytes()
    with pytest.raises(ExportError, match="--force"):
        add_variant(open_bundle(bundle_dir), int8_models, make_report("text"), copied, force=False)
    assert (copied / "bundle.json").read_bytes() == before


def scale_weights(path: Path) -> None:
    """Scale every other column of the integer matrices: a file as wrong as this one still loads and runs."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [node.input[position] for node in model.graph.node for position in SCALE_AT.get(node.op_type, ())]
    for name in scales:
        if name in constants and constants[name].dims:
            values = numpy_helper.to_array(constants[name]).copy()
            values[::2] *= 1.5
            constants[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, path)
