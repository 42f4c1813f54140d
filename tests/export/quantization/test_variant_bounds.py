"""The room of a reduced precision's bounds, by numbers written here, and what an added variant does to a spec."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_export.errors import ExportError, QuantizationError
from mmalign_export.quantization import variant
from mmalign_export.quantization.report import QuantizationReport, report_name
from mmalign_export.quantization.rounding import largest_level
from mmalign_export.quantization.variant import add_variant
from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.bundle.golden import Golden, load_golden
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.clipping import CLIPPING_NAME, Clipping, TowerClipping, load_clipping
from mmalign_runtime.errors import BundleError, EngineError, MmalignError, ProviderError
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import BundleSpec, Modality, Parity, Precision, Quantization
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.text_encoder import TextEncoder
from mmalign_runtime.verify import verify_bundle
from tests.export.quantization.tiny_models import make_report

BUNDLE = Path(__file__).parents[2] / "runtime/fixtures/tiny_bundle"
BOTH: tuple[Modality, ...] = ("image", "text")
Answers = dict[Modality, Vectors]


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle(BUNDLE)


@pytest.fixture
def golden(bundle: Bundle) -> Golden:
    return load_golden(bundle)


def right(golden: Golden) -> Answers:
    """PyTorch's own vectors."""
    return {
        "image": np.array([case.embedding for case in golden.images], np.float32),
        "text": np.array([case.embedding for case in golden.texts], np.float32),
    }


def turned(vectors: Vectors, angle: float) -> Vectors:
    """The vectors turned, each in the plane of its first two components."""
    found = vectors.copy()
    cosine, sine = np.cos(angle), np.sin(angle)
    found[:, 0] = cosine * vectors[:, 0] - sine * vectors[:, 1]
    found[:, 1] = sine * vectors[:, 0] + cosine * vectors[:, 1]
    return found


def moved(vectors: Vectors, by: float) -> Vectors:
    """The vectors with one component of the last one moved."""
    found = vectors.copy()
    found[-1, 3] += np.float32(by)
    return found


def report_of(precision: Precision) -> QuantizationReport:
    """A report with the usual floor."""
    return msgspec.structs.replace(make_report(), precision=precision, least_golden_cosine=0.97)


def proven(
    monkeypatch: pytest.MonkeyPatch, *answers: Answers | None, precision: Precision = "int8"
) -> dict[Modality, Parity]:
    """Prove a variant with engines that answer so; None is an engine that cannot run it."""
    by_engine = {f"engine {number}": answer for number, answer in enumerate(answers)}
    monkeypatch.setattr(variant, "installed_engines", lambda: tuple(by_engine))
    monkeypatch.setattr(variant, "_answers", lambda folder, engine, options, golden: by_engine[engine])
    return variant._prove(BUNDLE, BOTH, report_of(precision))[1]


@pytest.mark.parametrize(("precision", "cosine_room", "abs_room"), [("int8", 2e-3, 2e-2), ("fp16", 1e-3, 5e-3)])
def test_where_engines_agree_there_is_this_room(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, precision: Precision, cosine_room: float, abs_room: float
) -> None:
    found = proven(monkeypatch, right(golden), right(golden), precision=precision)
    assert {tower: parity.num_cases for tower, parity in found.items()} == {
        "image": len(golden.images),
        "text": len(golden.texts),
    }
    for parity in found.values():
        assert parity.cosine_bound == pytest.approx(1 - cosine_room, abs=1e-9)
        assert parity.abs_bound == abs_room
        assert parity.min_cosine == pytest.approx(1.0, abs=1e-6)
        assert parity.max_abs_difference == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("tower", BOTH)
def test_where_engines_differ_there_is_twice_as_much_room(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tower: Modality
) -> None:
    first = right(golden)
    found = proven(monkeypatch, first, {**first, tower: moved(first[tower], 0.05)})
    bounds = {name: parity.abs_bound for name, parity in found.items()}
    assert bounds == {**dict.fromkeys(BOTH, 2e-2), tower: pytest.approx(0.1, rel=1e-5)}
    other = {**first, tower: turned(first[tower], 0.3)}
    cosines = (first[tower] * other[tower]).sum(axis=1, dtype=np.float64)
    parity = proven(monkeypatch, first, other)[tower]
    assert 1 - parity.cosine_bound == pytest.approx(2 * (1 - cosines.min()), rel=1e-3)
    assert parity.cosine_bound < 0.998


def test_the_first_engine_that_answers_is_what_the_others_are_held_to(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = right(golden)
    off = {tower: moved(vectors, 0.03) for tower, vectors in first.items()}
    parity = proven(monkeypatch, None, off, off)["image"]
    assert parity.abs_bound == 2e-2  # they agree with each other
    assert parity.max_abs_difference == pytest.approx(0.03, rel=1e-4)  # and differ from PyTorch
    assert parity.min_cosine < 0.9999
    parity = proven(monkeypatch, first, off)["image"]
    assert parity.max_abs_difference == pytest.approx(0.03, rel=1e-4)  # of the engine that is farthest from PyTorch
    above, below = ({tower: moved(vectors, by) for tower, vectors in first.items()} for by in (0.03, -0.03))
    assert proven(monkeypatch, first, above, below)["text"].abs_bound == pytest.approx(0.06, rel=1e-4)
    with pytest.raises(QuantizationError, match="no engine ran the quantized towers on the golden cases"):
        proven(monkeypatch, None, None)


def test_golden_cases_get_the_first_engines_vectors_and_keep_all_else(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = {tower: moved(vectors, 0.03) for tower, vectors in right(golden).items()}
    monkeypatch.setattr(variant, "installed_engines", lambda: ("first", "second"))
    answers = {"first": off, "second": right(golden)}
    monkeypatch.setattr(variant, "_answers", lambda folder, engine, *_: answers[engine])
    own, _ = variant._prove(BUNDLE, BOTH, report_of("int8"))
    for cases, before, vectors in (
        (own.images, golden.images, off["image"]),
        (own.texts, golden.texts, off["text"]),
    ):
        np.testing.assert_array_equal(np.array([case.embedding for case in cases], np.float32), vectors)  # type: ignore[attr-defined]
        pairs = zip(cases, before, strict=True)  # type: ignore[arg-type]
        assert all(msgspec.structs.replace(own, embedding=old.embedding) == old for own, old in pairs)
    monkeypatch.setattr(variant, "_answers", lambda *_: {"text": off["text"]})
    text_alone, parity = variant._prove(BUNDLE, ("text",), report_of("int8"))
    assert text_alone.images == golden.images
    assert text_alone.texts == own.texts
    assert {tower: each.num_cases for tower, each in parity.items()} == {"text": len(golden.texts)}


@pytest.mark.parametrize(("cosine", "is_refused"), [(0.9685, False), (0.9675, True)])
def test_golden_cases_below_the_floor_less_its_room_are_refused(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, cosine: float, is_refused: bool
) -> None:
    # The floor is 0.97, and engines that agree have a room of 0.002.
    first = right(golden)
    length = float(np.hypot(first["text"][0, 0], first["text"][0, 1]))
    off = first["text"].copy()
    off[0] = turned(first["text"][:1], 2 * np.arcsin(np.sqrt((1 - cosine) / 2) / length))[0]
    answers = {**first, "text": off}
    if not is_refused:
        assert proven(monkeypatch, answers, answers)["text"].min_cosine == pytest.approx(cosine, abs=1e-5)
        return
    with pytest.raises(
        QuantizationError, match=r"the lowest cosine over the text golden cases is 0\.9675, expected at least"
    ):
        proven(monkeypatch, answers, answers)


@pytest.mark.parametrize("kind", [BundleError, ProviderError, EngineError])
def test_an_engine_that_fails_proves_nothing_and_says_why(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[MmalignError]
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise kind("not on this machine")

    monkeypatch.setattr("mmalign_runtime.embedder.Embedder.load", failing)
    options = variant._ProofOptions(BOTH, "int8", "cpu")
    with caplog.at_level(logging.INFO):
        assert variant._answers(BUNDLE, "openvino", options, golden) is None
    assert "not proven with openvino: not on this machine" in caplog.text


def models_of(bundle: Bundle, *towers: Modality) -> dict[Modality, bytes]:
    """The bundle's own float32 models: any model may stand for a reduced one."""
    return {tower: bundle.read(bundle.spec.artifact(tower).file) for tower in towers}


def added(
    bundle: Bundle, out: Path, *towers: Modality, precision: Precision = "int8", clipping: Clipping | None = None
) -> BundleSpec:
    report = msgspec.structs.replace(make_report(*towers), precision=precision)
    return add_variant(bundle, models_of(bundle, *towers), report, out, force=False, clipping=clipping)


@pytest.mark.parametrize("suffix", ["", ".mmalign"])
def test_a_bundle_that_changed_while_it_was_measured_is_not_replaced(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"bundle{suffix}"
    _ = pack_bundle(BUNDLE, out) if suffix else shutil.copytree(BUNDLE, out)
    report, models = make_report("image"), models_of(open_bundle(out), "image")
    first, second = open_bundle(out), open_bundle(out)
    kept = add_variant(first, models, report, out, force=True)
    with pytest.raises(ExportError, match="was changed by another process while this one measured"):
        add_variant(second, models, msgspec.structs.replace(report, precision="fp16"), out, force=True)
    assert open_bundle(out).spec.artifacts == kept.artifacts


def test_a_bundle_that_changed_while_its_variant_was_proven_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(BUNDLE, tmp_path / "bundle")
    bundle, prove = open_bundle(out), variant._prove

    def prove_while_another_writes(*arguments: object) -> object:
        monkeypatch.setattr(variant, "_prove", prove)
        add_variant(open_bundle(out), models_of(bundle, "text"), make_report("text"), out, force=True)
        return prove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(variant, "_prove", prove_while_another_writes)
    with pytest.raises(ExportError, match="was changed by another process"):
        add_variant(bundle, models_of(bundle, "image"), make_report("image"), out, force=True)
    assert {each.tower for each in open_bundle(out).spec.artifacts if each.precision == "int8"} == {"text"}


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_variant_adds_its_files_and_no_other(bundle: Bundle, tmp_path: Path, precision: Precision) -> None:
    spec = added(bundle, tmp_path / "out", *BOTH, precision=precision)
    name = "" if precision == "int8" else "_fp16"
    assert spec.files.keys() - bundle.spec.files.keys() == {
        f"onnx/vision_model_{precision}.onnx",
        f"onnx/text_model_{precision}.onnx",
        f"golden/cases_{precision}.json",
        f"quantization{name}.json",
        f"quantization{name}.svg",
    }
    assert bundle.spec.files.keys() <= spec.files.keys()
    assert spec.artifacts[:2] == bundle.spec.artifacts
    for artifact, tower, file in zip(spec.artifacts[2:], BOTH, ("vision_model", "text_model"), strict=True):
        assert (artifact.tower, artifact.kind) == (tower, f"onnx-{precision}")
        assert artifact.file == f"onnx/{file}_{precision}.onnx"
        assert artifact.golden == f"golden/cases_{precision}.json"
        chosen = make_report(*BOTH).chosen[tower]
        assert artifact.quantization == Quantization(
            report=f"quantization{name}.json",
            recipe=chosen.name(),
            mean_cosine=chosen.mean_cosine,
            lost_recall_at_1=chosen.lost_points[1],
            weight_level=largest_level() if precision == "int8" else None,
        )
    assert msgspec.structs.replace(open_bundle(tmp_path / "out").spec, seal=spec.seal) == spec
    assert verify_bundle(tmp_path / "out", provider="cpu", precision=precision, engine="onnxruntime").passed
    assert (tmp_path / "out" / report_name(precision)).read_text().endswith("}\n")
    assert report_name("int8") == "quantization.json"
    assert report_name("fp16") == "quantization_fp16.json"


def test_a_second_precision_leaves_the_first_and_the_same_one_replaces_it(bundle: Bundle, tmp_path: Path) -> None:
    added(bundle, tmp_path / "first", *BOTH)
    half = added(open_bundle(tmp_path / "first"), tmp_path / "second", "text", precision="fp16")
    assert half.artifact("text", "int8").golden == "golden/cases_int8.json"
    assert half.artifact("text", "fp16").golden == "golden/cases_fp16.json"
    assert offered(half) == {"image": ["fp32", "int8"], "text": ["fp32", "fp16", "int8"]}
    text_alone = added(open_bundle(tmp_path / "second"), tmp_path / "third", "text")
    assert offered(text_alone) == {"image": ["fp32"], "text": ["fp32", "fp16", "int8"]}
    assert "onnx/vision_model_int8.onnx" not in text_alone.files
    assert [(each.tower, each.precision) for each in text_alone.artifacts[2:]] == [("text", "fp16"), ("text", "int8")]


def offered(spec: BundleSpec) -> dict[str, list[Precision]]:
    return {tower: [each.precision for each in spec.offered(tower=tower)] for tower in spec.towers}


def test_what_counts_clipping_is_kept_with_eight_bits_until_they_are_replaced(bundle: Bundle, tmp_path: Path) -> None:
    clipping: Clipping = {"text": TowerClipping(addition=b"node", output="clipped", tensors=())}
    added(bundle, tmp_path / "int8", "text", clipping=clipping)
    assert load_clipping(open_bundle(tmp_path / "int8")) == clipping
    added(open_bundle(tmp_path / "int8"), tmp_path / "half", "text", precision="fp16")
    assert load_clipping(open_bundle(tmp_path / "half")) == clipping
    anew = added(open_bundle(tmp_path / "half"), tmp_path / "anew", "text")
    assert CLIPPING_NAME not in anew.files


@pytest.mark.parametrize("tower", BOTH)
def test_canary_vectors_outside_the_room_of_eight_bits_fail(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: Modality
) -> None:
    added(bundle, tmp_path / "out", *BOTH)
    parity = open_bundle(tmp_path / "out").spec.artifact(tower, "int8").parity
    assert parity is not None
    assert (parity.cosine_bound, parity.abs_bound) == (pytest.approx(0.998, abs=1e-6), 2e-2)
    encoder = ImageEncoder if tower == "image" else TextEncoder
    whole = encoder.tower
    for by, passed in ((1.95e-2, True), (2.05e-2, False)):
        shift = np.eye(1, 16, 3, dtype=np.float32) * np.float32(by)
        monkeypatch.setattr(encoder, "tower", lambda self, batch, shift=shift: whole(self, batch) + shift)
        report = verify_bundle(tmp_path / "out", provider="cpu", precision="int8", engine="onnxruntime")
        assert {case.kind for case in report.cases if not case.passed} == (set() if passed else {tower})


def test_what_is_proven_with_is_frozen() -> None:
    assert variant._ProofOptions.__struct_config__.frozen
