"""What is clipped is counted by hand, by the added graph, and by the command in a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mmalign_export.quantization.clipping import find_clipping, with_shares
from mmalign_export.quantization.convolutions import known_bounds
from mmalign_export.quantization.trial import open_model
from mmalign_export.quantization.variant import add_variant
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.cli import main
from mmalign_runtime.clipping import CLIPPING_NAME, Clipping, TowerClipping, clipped_shares, load_clipping
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.errors import BundleError
from mmalign_runtime.spec import Modality
from tests.export.quantization.tiny_models import OPTIONS, graph_model, make_report
from tests.export.test_parity import reseal

# A scale of 0.1 and a zero point of 100: from -10 to 15.5, and half a step more is rounded to an end.
RANGE = (-10.0, 15.5)
VALUES = np.array([[-10.04, -10.06, 0, 15.54, 15.56, 99]], np.float32)


def rounded(operator: str = "Identity") -> bytes:
    """Return x (B, 6) -> operator -> rounded -> y (B, 6)."""
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(100, np.uint8)}
    nodes = [
        helper.make_node(operator, ["x"], ["t"]),
        helper.make_node("QuantizeLinear", ["t", "scale", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["y"]),
    ]
    model = graph_model(nodes, constants, {"x": ["B", 6], "y": ["B", 6]})  # type: ignore[arg-type]
    return model.SerializeToString()


def test_a_share_by_hand() -> None:
    clipping = find_clipping(rounded(), {})
    assert clipping is not None
    (tensor,) = clipping.tensors
    assert (tensor.name, tensor.low, tensor.high) == ("t", pytest.approx(RANGE[0]), pytest.approx(RANGE[1]))
    np.testing.assert_allclose(clipped_shares(rounded(), clipping, [{"x": VALUES}]), [3 / 6], rtol=1e-6)
    both = [{"x": VALUES}, {"x": np.zeros((1, 6), np.float32)}]
    np.testing.assert_allclose(clipped_shares(rounded(), clipping, both), [3 / 12], rtol=1e-6)


def test_what_float32_would_not_keep_either_is_not_counted() -> None:
    one_sided = find_clipping(rounded("Relu"), {"t": (0.0, np.inf)})
    assert one_sided is not None
    np.testing.assert_allclose(clipped_shares(rounded("Relu"), one_sided, [{"x": VALUES}]), [2 / 6], rtol=1e-6)
    assert find_clipping(rounded(), {"t": (0.0, 6.0)}) is None


def test_the_vectors_stay_as_they_are() -> None:
    clipping = find_clipping(rounded(), {})
    assert clipping is not None
    plain, counted = (open_model(each, ("x",), OPTIONS) for each in (rounded(), rounded() + clipping.addition))
    np.testing.assert_array_equal(plain.run({"x": VALUES}), counted.run({"x": VALUES}))


def test_both_bytes_are_one_valid_model(int8_models: dict[Modality, bytes]) -> None:
    clipping = find_clipping(int8_models["image"], {})
    assert clipping is not None
    model = onnx.load_from_string(int8_models["image"] + clipping.addition)
    assert [output.name for output in model.graph.output][1:] == [clipping.output]
    assert len(clipping.addition) < len(int8_models["image"])


def test_shares_of_calibration_and_evaluation_are_kept_apart() -> None:
    clipping = find_clipping(rounded(), {})
    assert clipping is not None
    inside: Feeds = {"x": np.zeros((1, 6), np.float32)}
    (tensor,) = with_shares(clipping, rounded(), [inside], [inside, {"x": VALUES}]).tensors
    assert (tensor.calibration, tensor.evaluation) == (0.0, pytest.approx(0.25))


@pytest.fixture(scope="module")
def counted_dir(bundle_dir: Path, int8_models: dict[Modality, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with both towers in eight bits, and what counts the image tower's clipping."""
    bounds = known_bounds(onnx.load(bundle_dir / "onnx/vision_model.onnx"))
    found = find_clipping(int8_models["image"], bounds)
    assert found is not None
    out = tmp_path_factory.mktemp("counted") / "bundle"
    report = make_report("image", "text")
    add_variant(open_bundle(bundle_dir), int8_models, report, out, force=False, clipping={"image": found})
    return out


def test_an_embedder_counts_what_it_is_given(counted_dir: Path) -> None:
    with Embedder.load(counted_dir, provider="cpu", precision="int8") as embedder:
        grey = np.full((40, 40, 3), 128, np.uint8)
        found = embedder.clipping(images=[grey])
        assert found.keys() == {"image"}
        assert all(tensor.seen is not None and 0 <= tensor.seen <= 1 for tensor in found["image"])
        with pytest.raises(BundleError, match="the text tower has no int8 file, or none whose ranges were fixed"):
            embedder.clipping(texts=["a dog"])


def test_the_command_says_when_more_is_clipped_than_at_calibration(
    counted_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(path) for path in sorted((counted_dir / "golden").glob("landscape*"))]
    # Nothing was clipped at calibration, says the bundle, and every range is narrower than anything.
    narrow = narrowed(counted_dir, tmp_path / "narrow")
    assert bench(narrow, "--clipping", "--images", images[0]) == 0
    assert "more than when it was quantized (0.0000%)" in capsys.readouterr().out
    assert bench(counted_dir, "--clipping", "--images", images[0], "--json", "-") == 0
    (tensors,) = json.loads(capsys.readouterr().out).values()
    assert {"name", "low", "high", "calibration", "evaluation", "seen"} == set(tensors[0])


def test_a_bundle_that_counts_nothing_is_named(quantized_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(quantized_dir, "--clipping") == 2
    assert f"has no {CLIPPING_NAME}" in capsys.readouterr().err


def test_quantizing_again_without_leaves_no_older_counts(
    counted_dir: Path, int8_models: dict[Modality, bytes], tmp_path: Path
) -> None:
    add_variant(open_bundle(counted_dir), int8_models, make_report("image", "text"), tmp_path / "again", force=False)
    assert not (tmp_path / "again" / CLIPPING_NAME).exists()


def narrowed(bundle: Path, out: Path) -> Path:
    """Return a copy of the bundle whose added graph counts every value that is not 0."""
    kept = load_clipping(open_bundle(bundle))["image"]
    addition = onnx.load_from_string(kept.addition)
    for tensor in addition.graph.initializer:
        if tensor.name.endswith("_end"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32), tensor.name))
    clipping: Clipping = {
        "image": TowerClipping(addition=addition.SerializeToString(), output=kept.output, tensors=kept.tensors)
    }
    shutil.copytree(bundle, out)
    (out / CLIPPING_NAME).write_bytes(msgspec.json.encode(clipping))
    reseal(out)
    return out


def bench(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *(str(arg) for arg in args)])
    assert isinstance(stop.value.code, int)
    return stop.value.code
