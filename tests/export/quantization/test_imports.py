"""An import that comes without pairs: calibrated and judged on what the package carries, by the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmalign_export import Budget, import_model, quantize
from mmalign_export.errors import QuantizationError
from mmalign_export.golden import golden_files
from mmalign_export.quantization.data import PACKAGED, packaged_calibration, packaged_questions
from mmalign_export.sources.proof_texts import PROOF_TEXTS
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.verify import verify_bundle
from tests.export.quantization.conftest import CANNOT_RUN, run_quantize
from tests.export.sources.tiny import save_tiny
from tests.export.tracing import equal_towers_traced_once
from tests.tolerances import BATCH_MATES

NUM_SHAPES = 16
PHOTOGRAPHS = ("landscape 3x2", "portrait 9x16", "odd size", "RGBA")
TOWERS = ("image", "text")
ANYTHING = "cosine=0.5,golden=0.5"
CAPTIONS = ["a photo of a cat", "two dogs", "a very long caption about the sea and the boats on it"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as transformers saves it: vision transformer, QuickGELU, causal text without a mask."""
    folder = tmp_path_factory.mktemp("imported")
    files = [file for file in golden_files(()) if file.name in (*PHOTOGRAPHS, "tiny")]
    with equal_towers_traced_once():
        import_model(save_tiny("clip", folder / "source"), folder / "bundle", image_files=files)
    return folder / "bundle"


@pytest.mark.usefixtures("still")
def test_the_command_needs_no_pairs_says_so_and_no_vector_depends_on_its_batch(
    imported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_quantize(imported, "--budget", ANYTHING, "--out", out) == 0
    assert f"no --eval: judged by cosine alone, on {PACKAGED}; recall is not measured" in caplog.text
    assert f"no --calibration: ranges are taken from {PACKAGED}" in caplog.text
    assert "No pairs were given: recall was not measured" in capsys.readouterr().out
    report = json.loads((out / "quantization.json").read_bytes())
    assert (report["calibration"], report["evaluation"], report["fp32_recall"]) == (PACKAGED, PACKAGED, None)
    assert report["chosen"].keys() == {"image", "text"}
    tried = {tower: {trial["recipe"] for trial in report["trials"] if trial["tower"] == tower} for tower in TOWERS}
    assert tried["text"] >= {"static, 0.7", "by token, 0.7", "dynamic"}
    assert tried["image"] >= {"by token, 0.7", "dynamic"}
    assert not any(
        recipe.startswith("static") for recipe in tried["image"]
    )  # one photograph would judge its own ranges
    assert "No pairs were given: recall was not measured" in (out / "README.md").read_text()
    assert verify_bundle(out, provider="cpu", precision="int8").passed
    with Embedder.load(out, provider="cpu", precision="int8") as embedder:
        sources = [embedder.bundle.source(case.file) for case in load_golden(embedder.bundle).images]
        for encode, items in ((embedder.encode_image, sources), (embedder.encode_text, CAPTIONS)):
            alone = np.concatenate([encode([item]) for item in items])
            np.testing.assert_allclose(encode(items), alone, atol=BATCH_MATES.bound, rtol=0)


def test_what_it_is_judged_by_is_apart_from_what_it_is_calibrated_on(imported: Path) -> None:
    with Embedder.load(imported, provider="cpu") as embedder:
        calibration, questions = packaged_calibration(embedder), packaged_questions(embedder)
        num_golden = len(load_golden(embedder.bundle).texts)
    asked, known = set(questions.texts), set(PROOF_TEXTS[::2])
    assert len(asked | known) == len(set(PROOF_TEXTS)) == len(asked) + len(known)
    assert sum(len(tokens.input_ids) for tokens in calibration.tokens) == num_golden + len(PROOF_TEXTS[::2])
    assert (len(calibration.images), len(questions.images)) == (len(PHOTOGRAPHS), NUM_SHAPES)
    assert not {image.tobytes() for image in calibration.images} & {image.tobytes() for image in questions.images}
    assert questions.relevant is None


def test_recall_that_nothing_measures_is_refused(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_quantize(imported, "--budget", "recall@1=0.5", "--out", tmp_path / "out") == CANNOT_RUN
    assert "asks for recall, which needs pairs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_trained_bundle_is_judged_by_pairs(bundle_dir: Path, tmp_path: Path, precision: str) -> None:
    with pytest.raises(QuantizationError, match="trained is judged by its recall on pairs"):
        quantize(bundle_dir, tmp_path / "out", budget=Budget({}), precision="int8" if precision == "int8" else "fp16")


@pytest.mark.usefixtures("still")
def test_a_tower_without_anything_to_round_is_named(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmalign_export.quantization.tower_search.eight_bit_recipes", lambda *_: ())
    assert run_quantize(imported, "--budget", ANYTHING, "--towers", "image", "--out", tmp_path / "out") == CANNOT_RUN
    assert "no tower can have fewer bits: image has nothing to round: no convolution" in capsys.readouterr().err
