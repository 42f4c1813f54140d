from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.config import EvaluateConfig
from mmalign.data import DataSource, read_pairs
from mmalign.errors import ConfigError
from mmalign.evaluation.of_bundle import evaluate_bundle
from mmalign.figures.retrieval import recall_both_ways
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign_runtime import Embedder
from mmalign_runtime.bundle.packing import pack_bundle
from mmalign_runtime.cli import main
from mmalign_runtime.errors import MmalignError

TINY = Path(__file__).parents[2] / "runtime/fixtures/tiny_bundle"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve pictures of one colour each, named by it, in two classes."""
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "group"])
        for number in range(12):
            Image.new("RGB", (30 + number, 24), (20 * number, 255 - 20 * number, 90)).save(tmp_path / f"{number}.png")
            writer.writerow([f"{number}.png", f"picture {number} of a dog", "light" if number % 2 else "dark"])
    return path


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def test_the_figures_are_those_of_the_vectors_that_the_runtime_serves(pairs: Path) -> None:
    scores = evaluate_bundle(TINY, pairs)
    items = build_retrieval_set(read_pairs(DataSource(path=str(pairs))).pairs, "all")
    with Embedder.load(TINY) as embedder:
        images = torch.from_numpy(np.concatenate([embedder.encode_image([pair.image]) for pair in items.pairs]))
        texts = torch.from_numpy(np.concatenate([embedder.encode_text([text]) for text in items.texts]))
        assert scores.space_id == embedder.info().space_id
    assert (scores.model.image_to_text, scores.model.text_to_image) == recall_both_ways(images, texts, items.relevant)
    assert (scores.num_images, scores.num_captions, scores.num_classes) == (12, 12, 0)
    assert scores.chance.image_to_text.at_1 == pytest.approx(1 / 12)
    assert scores.model.zero_shot_accuracy is None


def test_pairs_with_a_class_are_told_apart_by_the_templates(pairs: Path) -> None:
    source = DataSource(path=str(pairs), group_column="group")
    scores = evaluate_bundle(TINY, source)
    assert scores.num_classes == 2
    assert scores.chance.zero_shot_accuracy == 0.5
    assert scores.model.zero_shot_accuracy is not None
    assert scores.model.zero_shot_accuracy * 12 == pytest.approx(round(scores.model.zero_shot_accuracy * 12))
    in_other_words = evaluate_bundle(TINY, source, EvaluateConfig(templates=("dog {}",)))
    assert in_other_words.model.image_to_text == scores.model.image_to_text


def test_the_command_prints_the_bundle_beside_chance(
    pairs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = shutil.copytree(TINY, tmp_path / "bundle")
    assert _run("evaluate", bundle, "--pairs", pairs, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 12
    assert _run("evaluate", bundle, "--pairs", pairs, "--group-column", "group", "--template", "a {} picture") == 0
    shown = capsys.readouterr().out
    assert "12 images, 12 captions" in shown
    assert "bundle" in shown
    assert "linear map" not in shown
    moved = tmp_path / "elsewhere" / "pairs.csv"
    moved.parent.mkdir()
    moved.write_text(pairs.read_text().replace("image,", "file,", 1))
    assert _run("evaluate", bundle, "--pairs", moved, "--json") == 2
    assert 'set image_column = "file"' in capsys.readouterr().err
    named = ("--image-column", "file", "--image-root", pairs.parent)
    assert _run("evaluate", bundle, "--pairs", moved, *named, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 12
    assert "2 classes" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "is a bundle, and says nothing of its data. Name pairs to measure it on with --pairs."),
        (
            ("--pairs", "PAIRS", "--dim", "16"),
            "the first 16 components was asked for (--dim, evaluate.dims), of vectors",
        ),
        (
            ("--pairs", "PAIRS", "--split", "val"),
            "--split say nothing with --pairs: --pairs measures a bundle, else it is a run.",
        ),
        (
            ("--pairs", "PAIRS", "--template", "{}", "--template", "a"),
            "--template: template 'a' has no {} for the name",
        ),
        (("--template", "a {}"), "--template say nothing without --pairs: --pairs measures a bundle"),
        (("--pairs", "PAIRS", "--report", "PAIRS"), "pairs.csv ends in '.csv', expected .html. Choose such a name."),
        (("--pairs", "PAIRS", "--precision", "int4"), "--precision 'int4' is not known; choose one of fp32, "),
    ],
)
def test_what_cannot_be_measured_says_what_to_do(
    words: tuple[str, ...], message: str, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("evaluate", TINY, *(str(pairs) if word == "PAIRS" else word for word in words)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_prefix_that_is_no_prefix_is_refused_before_anything_is_embedded(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.evaluation.of_bundle._vectors", None)
    with pytest.raises(ConfigError, match=r"the first 16 components .*, of vectors of 16\. Ask for fewer"):
        evaluate_bundle(TINY, pairs, EvaluateConfig(dims=(8, 16)))


def test_an_archive_of_any_suffix_is_told_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = pack_bundle(TINY, tmp_path / "tiny.mmalign").rename(tmp_path / "tiny.zip")
    assert _run("evaluate", packed) == 2
    assert "tiny.zip is a bundle, and says nothing of its data" in " ".join(capsys.readouterr().err.split())


def test_no_pairs_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(MmalignError, match=r"pairs\.jsonl.* holds nothing; expected one or more pairs"):
        evaluate_bundle(TINY, tmp_path / "pairs.jsonl")
