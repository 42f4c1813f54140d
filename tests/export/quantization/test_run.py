"""From a bundle and a table of pairs to a bundle with eight bits; clocks are stood still, all else is real."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from onnx import ModelProto

from mmalign_export import Budget, quantize
from mmalign_export.errors import ExportError, QuantizationError
from mmalign_export.quantization.recipes import Recipe
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import Modality
from mmalign_runtime.verify import verify_bundle
from tests.export.quantization.conftest import CANNOT_RUN, run_quantize

PACK = Path(__file__).parents[3] / "benchmarks/emoji/packs/noto.parquet"
NUM_DRAWINGS = 16
ANYTHING = "recall@1=100,cosine=0.5,golden=0.5"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("asked"), 0)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs to calibrate on."""
    return drawings(tmp_path_factory.mktemp("calibrated"), NUM_DRAWINGS)


def drawings(folder: Path, start: int) -> Path:
    rows = pq.read_table(PACK, columns=["concept", "label", "image"]).slice(start, NUM_DRAWINGS).to_pylist()
    for row in rows:
        (folder / f"{row['concept']}.webp").write_bytes(row["image"])
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = [(f"{row['concept']}.webp", row["label"]) for row in rows]
        csv.writer(file).writerows([("image", "caption"), *table])
    return folder / "pairs.csv"


@pytest.mark.usefixtures("still")
def test_the_command_adds_both_towers_and_they_verify(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mmalign"
    code = run_quantize(
        bundle_dir,
        "--calibration",
        others,
        "--eval",
        pairs,
        "--budget",
        ANYTHING,
        "--out",
        out,
        "--json",
        "--threads",
        1,
    )
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["chosen"].keys() == {"image", "text"}
    assert (report["num_images"], report["calibration"], report["engine"]) == (NUM_DRAWINGS, "pairs.csv", "onnxruntime")
    recipes = {trial["recipe"]: trial for trial in report["trials"]}
    assert {"static, extremes", "by token, 0.7", "weights, 8 bits", "dynamic"} <= recipes.keys()
    assert recipes["dynamic"]["refused"] == "moves with its batch"
    assert recipes["by token, 0.7"]["moved_in_batch"] < 1e-6
    assert open_bundle(out).spec.precisions() == ("fp32", "int8")
    assert verify_bundle(out, provider="cpu", precision="int8").passed
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("still", "one_recipe")
def test_float16_needs_no_calibration_stands_beside_int8_and_verifies(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight, both, again = tmp_path / "eight", tmp_path / "both", tmp_path / "again"
    calibrated = ("--calibration", others, "--eval", pairs, "--budget", ANYTHING)
    assert run_quantize(bundle_dir, *calibrated, "--out", eight) == 0
    assert run_quantize(eight, "--precision", "fp16", "--eval", pairs, "--budget", "cosine=0.9999", "--out", both) == 0
    assert "none was here to time it on" in capsys.readouterr().out
    assert open_bundle(both).spec.precisions() == ("fp32", "fp16", "int8")
    reports = {each.kind: each.quantization.report for each in open_bundle(both).spec.artifacts if each.quantization}
    assert reports == {"onnx-int8": "quantization.json", "onnx-fp16": "quantization_fp16.json"}
    assert verify_bundle(both, provider="cpu", precision="fp16").passed
    assert verify_bundle(both, provider="cpu", precision="int8").passed
    card = (both / "README.md").read_text()
    for words in ("## Quantized to eight bits", "## In float16", "quantization_fp16.svg"):
        assert card.count(words) == 1
    report = json.loads((both / "quantization_fp16.json").read_bytes())
    assert (report["precision"], report["asks_for_speed"], report["calibration"]) == ("fp16", False, "")
    assert run_quantize(both, *calibrated, "--out", again) == 0  # eight bits anew leave the other as it was
    assert verify_bundle(again, provider="cpu", precision="fp16").passed


def test_int8_asks_for_calibration(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_quantize(bundle_dir, "--eval", pairs, "--out", tmp_path / "out") == CANNOT_RUN
    assert "Give them with --calibration" in capsys.readouterr().err


@pytest.fixture
def one_recipe(monkeypatch: pytest.MonkeyPatch, int8_models: dict[Modality, bytes]) -> None:
    """The ladders are short: what they hold is tested elsewhere."""

    def recipes(path: Path, *_: object) -> tuple[Recipe, ...]:
        tower: Modality = "image" if path.stem == "image" else "text"
        return (Recipe("static", lambda _: ModelProto.FromString(int8_models[tower])),)

    monkeypatch.setattr("mmalign_export.quantization.tower_search.eight_bit_recipes", recipes)


@pytest.mark.usefixtures("still", "one_recipe")
def test_one_tower_and_the_place_of_the_bundle(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_dir, bundle)
    assert run_quantize(bundle, "--calibration", others, "--eval", pairs, "--budget", ANYTHING, "--towers", "text") == 0
    out = capsys.readouterr().out
    assert "text: static, 2.00x as fast as float32" in out
    spec = open_bundle(bundle).spec
    assert [each.tower for each in spec.artifacts if each.precision == "int8"] == ["text"]
    assert list(tmp_path.iterdir()) == [bundle]


@pytest.mark.usefixtures("still", "one_recipe")
def test_both_towers_together_are_inside_the_budget(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path
) -> None:
    budget = Budget({1: 100.0}, 0.5, 0.5)
    _, report = quantize(bundle_dir, tmp_path / "out", calibration=str(others), evaluation=str(pairs), budget=budget)
    assert report.pair_lost_points is not None
    assert budget.allows(report.pair_lost_points, 1.0)
    assert report.pair_recall is not None


@pytest.mark.usefixtures("still", "one_recipe")
def test_nothing_that_qualifies_is_an_error_that_says_how_near_it_was(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        QuantizationError,
        match=r"image 'static' is 2.00x .* golden cosine of 0\.\d+, of '.*\(outside .*; text 'static' .* --budget",
    ):
        quantize(bundle_dir, tmp_path / "out", calibration=str(others), evaluation=str(pairs), budget=Budget({}, 1.0))
    assert list(tmp_path.iterdir()) == []


def test_no_candidate_that_runs_is_an_error(
    bundle_dir: Path, pairs: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mmalign_export.quantization.tower_search.eight_bit_recipes",
        lambda *_: (Recipe("broken", lambda _: ModelProto()),),
    )
    with pytest.raises(QuantizationError, match="text has 1 candidates, and onnxruntime ran none"):
        quantize(
            bundle_dir,
            tmp_path / "out",
            calibration=str(others),
            evaluation=str(pairs),
            budget=Budget({1: 1.0}),
            towers=["text"],
        )


def test_a_place_that_is_taken_is_said_before_anything_is_measured(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unused(*_: object) -> Iterable[object]:
        pytest.fail("measured first")

    monkeypatch.setattr("mmalign_export.quantization.run.read_data", unused)
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(ExportError, match="--force"):
        quantize(bundle_dir, tmp_path, calibration="c.csv", evaluation="e.csv", budget=Budget({1: 1.0}))


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"--budget": "recall@2=1"}, "error: budget 'recall@2=1' is not known"),
        ({"--calibration": "nowhere.csv"}, "nowhere.csv"),
        ({"--eval": "nowhere.toml"}, "nowhere.toml"),
        ({"--engine": "abacus"}, "abacus"),
        ({"--towers": "sound"}, "'sound' is not known"),
    ],
)
def test_wrong_arguments_are_named(
    bundle_dir: Path,
    pairs: Path,
    others: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    seen: str,
) -> None:
    options = {"--calibration": str(others), "--eval": str(pairs), "--out": str(tmp_path / "out"), **changed}
    assert run_quantize(bundle_dir, *(word for option in options.items() for word in option)) == CANNOT_RUN
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert seen in error
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_none_is_named(
    pairs: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_quantize(tmp_path, "--calibration", others, "--eval", pairs) == CANNOT_RUN
    assert "error: " in capsys.readouterr().err
