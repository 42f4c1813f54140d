from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_export.errors import QuantizationError
from mmalign_export.quantize.examples import read_calibration, read_questions
from mmalign_runtime import Embedder
from mmalign_runtime.bundle.golden import load_golden

NUM_PAIRS = 12


@pytest.fixture(scope="module")
def embedder(bundle_dir: Path) -> Embedder:
    return Embedder.load(bundle_dir, provider="cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve colours, of which two share a caption."""
    for number in range(NUM_PAIRS):
        Image.new("RGB", (20, 20 + number), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = [(f"{number}.png", f"red {max(number, 1)}", number) for number in range(NUM_PAIRS)]
        csv.writer(file).writerows([("image", "caption", "concept"), *rows])
    return tmp_path / "pairs.csv"


def config_of(pairs: Path) -> Path:
    config = pairs.with_name("run.toml")
    config.write_text(
        f"[[data.sources]]\npath = '{pairs}'\nconcept_column = 'concept'\n[data.split]\nval = 0.2\ntest = 0.3\n"
    )
    return config


def test_the_golden_texts_are_calibrated_on_too(embedder: Embedder, pairs: Path) -> None:
    golden = load_golden(embedder.bundle)
    found = read_calibration(str(pairs), embedder, 5, 7)
    assert len(found.images) == 5
    assert sum(len(tokens.input_ids) for tokens in found.tokens) == len(golden.texts) + 7
    assert {image.shape for image in found.images} == {(1, 3, 64, 64)}


def test_the_sample_is_the_same_each_time(embedder: Embedder, pairs: Path) -> None:
    first, again = (read_calibration(str(pairs), embedder, 5, 7) for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(first.images), np.concatenate(again.images))


def test_questions_know_all_right_answers(embedder: Embedder, pairs: Path) -> None:
    questions = read_questions(str(pairs), embedder, 100)
    assert (len(questions.images), len(questions.texts)) == (12, 11)
    right = [questions.relevant.right(row).tolist() for row in range(12)]
    assert [len(columns) for columns in right] == [1] * 12
    assert right.count([questions.texts.index("red 1")]) == 2


def test_questions_are_at_most_as_many_as_asked(embedder: Embedder, pairs: Path) -> None:
    assert len(read_questions(str(pairs), embedder, 4).images) == 4


def test_a_configuration_gives_its_train_split_to_one_and_its_test_split_to_the_other(
    embedder: Embedder, pairs: Path
) -> None:
    config = str(config_of(pairs))
    trained = {image.tobytes() for image in read_calibration(config, embedder, 100, 1).images}
    asked = {image.tobytes() for image in read_questions(config, embedder, 100).images}
    assert trained
    assert asked
    assert not trained & asked


def test_no_pairs_is_an_error(embedder: Embedder, pairs: Path) -> None:
    config = config_of(pairs)
    config.write_text(config.read_text().replace("test = 0.3", "test = 0.0"))
    with pytest.raises(QuantizationError, match="holds no pairs to measure with"):
        read_questions(str(config), embedder, 10)
