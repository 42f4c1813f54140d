"""Weights outside the .onnx file: written where it would be too large, read from memory, held to their own hash.

The limit of 2 GB is an argument, so that a tiny model has such weights here. `python -m benchmarks.imports.real_size
'clip, 2.4 GB'` imports and verifies one above it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from mmalign.dual_model import DualModel
from mmalign_export import export_model
from mmalign_export.bundle import hashes
from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.budget import parse_budget
from mmalign_export.quantization.run import quantize
from mmalign_runtime import Embedder, verify_bundle
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.packing import pack_bundle, unpack_bundle
from mmalign_runtime.errors import BundleError, BundleFeatureError, BundleIntegrityError
from mmalign_runtime.spec import SPEC_NAME, BundleSpec, decode_spec, encode_spec
from tests.export.conftest import small_golden_files
from tests.export.tracing import equal_towers_traced_once
from tests.tolerances import FEATURES

WEIGHTS = {"image": "onnx/vision_model.onnx_data", "text": "onnx/text_model.onnx_data"}
SMALL = 20_000
IMAGE = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
TEXTS = ["a dog", "", "a photo of a dog running on the beach"]


@pytest.fixture(scope="session")
def large_bundle(model: DualModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with weights outside both models. Copy it before changing anything in it."""
    out = tmp_path_factory.mktemp("large") / "bundle"
    with equal_towers_traced_once():
        export_model(model, out, image_files=small_golden_files(), largest_file_bytes=SMALL)
    return out


@pytest.fixture
def copied(large_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(large_bundle, tmp_path / "bundle")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmalign" / "optimized"


def vectors(bundle: Path, **fields: object) -> np.ndarray:
    with Embedder.load(bundle, provider="cpu", num_threads=1, **fields) as embedder:
        return np.concatenate([embedder.encode_image([IMAGE]), embedder.encode_text(TEXTS)])


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def without_external(spec: BundleSpec) -> BundleSpec:
    whole = tuple(msgspec.structs.replace(each, external=()) for each in spec.artifacts)
    return msgspec.structs.replace(spec, artifacts=whole)


def reseal(bundle: Path, change: Callable[[BundleSpec], BundleSpec]) -> None:
    """Write the spec anew, as whoever made the bundle would."""
    path = bundle / SPEC_NAME
    path.write_bytes(encode_spec(change(decode_spec(path.read_bytes()))))


def rehashed(bundle: Path) -> None:
    reseal(bundle, lambda spec: msgspec.structs.replace(spec, files=hashes(bundle)))


def test_each_model_keeps_its_large_tensors_beside_it_and_the_spec_lists_their_files(large_bundle: Path) -> None:
    spec = open_bundle(large_bundle).spec
    for artifact in spec.artifacts:
        assert artifact.external == (WEIGHTS[artifact.tower],)
        assert spec.files.keys() >= set(artifact.external)
        model = onnx.load(large_bundle / artifact.file, load_external_data=False)
        where = {(each.external_data[0].value if each.external_data else "") for each in model.graph.initializer}
        assert where == {"", Path(WEIGHTS[artifact.tower]).name}
        for each in model.graph.initializer:
            size = onnx.numpy_helper.to_array(each, str(large_bundle / "onnx")).nbytes
            assert bool(each.external_data) == (size >= 1024), each.name


@pytest.mark.usefixtures("traced_once")
def test_a_model_at_the_limit_stays_whole(bundle_dir: Path, model: DualModel, tmp_path: Path) -> None:
    sizes = {each.tower: (bundle_dir / each.file).stat().st_size for each in open_bundle(bundle_dir).spec.artifacts}
    smaller, larger = sorted(sizes, key=lambda name: sizes[name])
    export_model(model, tmp_path / "bundle", largest_file_bytes=(sizes[smaller] + sizes[larger]) // 2)
    spec = open_bundle(tmp_path / "bundle").spec
    assert spec.artifact(smaller).external == ()
    assert spec.artifact(larger).external == (WEIGHTS[larger],)
    assert spec.space_id == open_bundle(bundle_dir).spec.space_id


def test_folder_archive_and_unpacked_archive_give_the_vectors_of_the_whole_model(
    bundle_dir: Path, large_bundle: Path, tmp_path: Path
) -> None:
    packed = pack_bundle(large_bundle, tmp_path / "bundle.mmalign")
    unpacked = unpack_bundle(packed, tmp_path / "unpacked")
    expected = vectors(bundle_dir)
    for place in (large_bundle, packed, unpacked):
        np.testing.assert_allclose(vectors(place), expected, rtol=0, atol=FEATURES.bound)
    np.testing.assert_array_equal(vectors(packed), vectors(large_bundle))
    assert verify_bundle(packed, provider="cpu").passed
    assert verify_bundle(large_bundle, provider="cpu", against=bundle_dir).passed


def test_openvino_reads_such_a_folder_and_refuses_such_an_archive(large_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    np.testing.assert_allclose(vectors(large_bundle, engine="openvino"), vectors(large_bundle), rtol=0, atol=1e-5)
    packed = pack_bundle(large_bundle, tmp_path / "bundle.mmalign")
    with pytest.raises(BundleFeatureError, match=r"which OpenVINO reads from a folder alone\. Unpack the bundle"):
        vectors(packed, engine="openvino")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_that_are_written_to_later_are_not_those_that_serve(copied: Path, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    with Embedder.load(copied, provider="cpu", engine=engine) as embedder:
        before = embedder.encode_text(TEXTS)
        path = copied / WEIGHTS["text"]
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        np.testing.assert_array_equal(embedder.encode_text(TEXTS), before)


@pytest.mark.parametrize("tower", WEIGHTS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_flipped_bit_in_the_weights_is_found_with_the_name_of_the_file(
    copied: Path, tower: str, share: float, tmp_path: Path
) -> None:
    archive = pack_bundle(copied, tmp_path / "bundle.mmalign")
    path = copied / WEIGHTS[tower]
    position = int(share * (path.stat().st_size - 1))
    raw = path.read_bytes()
    start = archive.read_bytes().index(raw)
    flip(path, position)
    flip(archive, start + position)
    for place in (copied, archive):
        with pytest.raises(BundleIntegrityError, match=rf"{Path(WEIGHTS[tower]).name}.*(was changed|cannot be read)"):
            verify_bundle(place, provider="cpu")


@pytest.mark.parametrize("change", ["missing", "short", "a link"])
def test_weights_that_are_not_whole_in_the_folder_are_found(copied: Path, change: str, tmp_path: Path) -> None:
    path = copied / WEIGHTS["image"]
    if change == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.rename(tmp_path / "elsewhere")
        if change == "a link":
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleIntegrityError, match=r"vision_model\.onnx_data (is missing|was changed|is a link)"):
        Embedder.load(copied, provider="cpu")


def test_weights_that_are_replaced_while_a_tower_waits_to_be_loaded_are_found(copied: Path) -> None:
    with Embedder.load(copied, provider="cpu", lazy=True) as embedder:
        flip(copied / WEIGHTS["text"], 7)
        with pytest.raises(BundleIntegrityError, match=r"text_model\.onnx_data was replaced since"):
            embedder.encode_text(TEXTS)


def test_weights_that_the_artifact_does_not_list_are_never_read(copied: Path) -> None:
    reseal(copied, without_external)
    for engine in ("onnxruntime", "openvino"):
        if engine == "openvino":
            pytest.importorskip("openvino")
        with pytest.raises(BundleIntegrityError, match=r"in another file, 'vision_model\.onnx_data'; expected none"):
            Embedder.load(copied, provider="cpu", engine=engine)


def test_kept_graphs_of_equal_models_with_other_weights_are_two(copied: Path, cache: Path) -> None:
    plain = vectors(copied)
    assert len(list(cache.glob("*"))) == 0
    np.testing.assert_array_equal(vectors(copied, cache=True), plain)
    np.testing.assert_array_equal(vectors(copied, cache=True), plain)
    assert len(list(cache.glob("*"))) == 2
    path = copied / WEIGHTS["text"]
    path.write_bytes((np.frombuffer(path.read_bytes(), np.float32) * 1.5).tobytes())
    rehashed(copied)
    assert (vectors(copied, cache=True) != plain).any()
    assert len(list(cache.glob("*"))) == 3


def test_a_variant_is_of_its_weights_too(large_bundle: Path) -> None:
    spec = open_bundle(large_bundle).spec
    other = msgspec.structs.replace(spec, files={**spec.files, WEIGHTS["image"]: "0" * 64})
    assert other.variant_id("fp32") != spec.variant_id("fp32")


def test_such_a_tower_is_not_quantized(large_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"the image tower keeps weights beside its model, in onnx/vision_mod"):
        quantize(
            large_bundle, tmp_path / "out", calibration="pairs", evaluation="pairs", budget=parse_budget("recall@1=1")
        )
    assert not (tmp_path / "out").exists()


def test_a_file_of_weights_that_is_too_short_for_its_model_is_refused(copied: Path) -> None:
    path = copied / WEIGHTS["image"]
    path.write_bytes(path.read_bytes()[:2048])
    rehashed(copied)
    with pytest.raises(BundleError, match=r"reads beyond the end of 'vision_model\.onnx_data', which has 2048 bytes"):
        Embedder.load(copied, provider="cpu")
