from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.data import Questions, read_calibration, read_questions
from mmalign_runtime import Embedder
from mmalign_runtime.bundle.golden import load_golden

NUM_PAIRS = 12
NOTHING_ASKED = Questions((), (), (), np.zeros((0, 0), np.bool_))


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


def test_the_golden_texts_and_photographs_are_calibrated_on_too(embedder: Embedder, pairs: Path) -> None:
    golden = load_golden(embedder.bundle)
    found = read_calibration(str(pairs), embedder, 5, 7, NOTHING_ASKED)
    assert sum(len(tokens.input_ids) for tokens in found.tokens) == len(golden.texts) + 7
    assert {image.shape for image in found.images} == {(1, 3, 64, 64)}
    small = {case.name for case in golden.images if min(case.height, case.width) < 64}
    assert {"tiny", "one pixel"} <= small
    assert len(found.images) == 5 + len(golden.images) - len(small)


def test_the_sample_is_the_same_each_time(embedder: Embedder, pairs: Path) -> None:
    first, again = (read_calibration(str(pairs), embedder, 5, 7, NOTHING_ASKED) for _ in range(2))
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
    questions = read_questions(config, embedder, 100)
    trained = {image.tobytes() for image in read_calibration(config, embedder, 100, 1, questions).images}
    asked = {image.tobytes() for image in questions.images}
    assert trained
    assert asked
    assert not trained & asked


def test_no_pairs_is_an_error(embedder: Embedder, pairs: Path) -> None:
    config = config_of(pairs)
    config.write_text(config.read_text().replace("test = 0.3", "test = 0.0"))
    with pytest.raises(QuantizationError, match="holds no pairs to measure with"):
        read_questions(str(config), embedder, 10)


def test_images_that_are_asked_about_are_left_out_of_the_calibration_wherever_they_are_kept(
    embedder: Embedder, pairs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in (3, 4):
        shutil.copy(tmp_path / f"{number}.png", elsewhere / f"copy of {number}.png")
    Image.new("RGB", (50, 50), (0, 0, 200)).save(elsewhere / "new.png")
    names = ("copy of 3", "copy of 4", "new")
    rows = "".join(f"{name}.png,a caption of {name}\n" for name in names)
    (elsewhere / "pairs.csv").write_text(f"image,caption\n{rows}")
    questions = read_questions(str(pairs), embedder, 100)
    found = read_calibration(str(elsewhere / "pairs.csv"), embedder, 100, 100, questions)
    golden = load_golden(embedder.bundle)
    assert len(found.images) == 1 + sum(min(case.height, case.width) >= 64 for case in golden.images)
    assert sum(len(tokens.input_ids) for tokens in found.tokens) == 1 + len(golden.texts)
    assert "2 of 3 pairs of --calibration have images of --eval too" in caplog.text


def test_calibrating_and_asking_with_the_same_pairs_is_an_error(embedder: Embedder, pairs: Path) -> None:
    questions = read_questions(str(pairs), embedder, 100)
    with pytest.raises(QuantizationError, match="all 12 pairs of --calibration have images of --eval"):
        read_calibration(str(pairs), embedder, 100, 100, questions)


def test_pairs_that_were_not_drawn_to_be_asked_about_may_calibrate(embedder: Embedder, pairs: Path) -> None:
    questions = read_questions(str(pairs), embedder, 4)
    found = read_calibration(str(pairs), embedder, 100, 100, questions)
    asked = {image.tobytes() for image in questions.images}
    assert not asked & {image.tobytes() for image in found.images}
