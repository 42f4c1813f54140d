from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mmalign.config import Config
from mmalign.errors import CheckpointError, TrainingError
from mmalign.figures.retrieval import recall_both_ways
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.run import Run, create_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.metrics import COLUMNS, MetricsLog, MetricsRow, Validation, Validator, read_metrics
from mmalign_runtime.errors import ItemError
from tests.mmalign.run_features import features_of

MakeConfig = Callable[..., Config]
VAL = Validation(0.1, 0.25, 1 / 3)


def row(step: int, val: Validation | None = None) -> MetricsRow:
    return MetricsRow(step, 1, loss=0.1 + step, logit_scale=14.2, learning_rate=1e-3, gradient_norm=None, val=val)


def write(folder: Path, rows: list[MetricsRow], keep_steps: int = 0) -> None:
    with MetricsLog(folder, keep_steps) as log:
        for each in rows:
            log.write(each)


def test_every_digit_is_written(tmp_path: Path) -> None:
    write(tmp_path, [row(1), row(2, VAL)])
    plain, validated = read_metrics(tmp_path / "metrics.csv")
    assert tuple(plain) == COLUMNS
    assert float(plain["loss"]) == 1.1
    assert (plain["val_score"], plain["gradient_norm"]) == ("", "")
    assert float(validated["val_score"]) == 1 / 3


def test_rows_are_there_before_the_log_is_closed(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, keep_steps=0) as log:
        log.write(row(1))
        assert len(read_metrics(tmp_path / "metrics.csv")) == 1


def test_resume_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, [row(1), row(2), row(3)])
    write(tmp_path, [row(3), row(4)], keep_steps=2)
    assert [each["step"] for each in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("num_cut", [1, 2, 3, 9, 30])
def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path, num_cut: int) -> None:
    write(tmp_path, [row(1), row(2, VAL)])
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-num_cut])
    assert [each["step"] for each in read_metrics(path)] == ["1"]
    write(tmp_path, [row(2, VAL)], keep_steps=1)
    assert [each["val_score"] for each in read_metrics(path)] == ["", repr(1 / 3)]


def test_a_start_anew_keeps_nothing(tmp_path: Path) -> None:
    write(tmp_path, [row(1)])
    write(tmp_path, [], keep_steps=0)
    assert read_metrics(tmp_path / "metrics.csv") == []


@contextlib.contextmanager
def no_room_in(path: Path) -> Iterator[None]:
    """Let no file grow past the size of this one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_row_that_has_no_room_is_an_error_that_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, [row(1)])
    path = tmp_path / "metrics.csv"
    expected = rf"{re.escape(str(path))} cannot be written: File too large\. Make room on the disk, then .*--resume"
    log = MetricsLog(tmp_path, keep_steps=1)
    with no_room_in(path):
        with pytest.raises(CheckpointError, match=expected):
            log.write(row(2))
        with pytest.raises(CheckpointError, match=expected):
            log.__exit__(None, None, None)
    assert [each["step"] for each in read_metrics(path)] == ["1"]
    write(tmp_path, [row(2)], keep_steps=1)
    assert [each["step"] for each in read_metrics(path)] == ["1", "2"]


def test_a_log_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    write(tmp_path, [row(1)])
    with no_room_in(tmp_path / "metrics.csv"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with pytest.raises(CheckpointError, match=r"metrics\.csv cannot be written: File too large\. Make room"):
            MetricsLog(tmp_path, keep_steps=1)
    assert [each["step"] for each in read_metrics(tmp_path / "metrics.csv")] == ["1"]


@pytest.mark.parametrize(("loss", "expected"), [("sigmoid", "-3.5"), ("infonce", "")])
def test_the_bias_of_a_logit_is_logged_for_a_loss_that_has_one(
    make_config: MakeConfig, tmp_path: Path, loss: str, expected: str
) -> None:
    settings: dict[str, object] = {"loss.kind": loss, "train.epochs": 1}
    train(make_config(settings | ({"loss.bias": -3.5} if loss == "sigmoid" else {})), tmp_path / "run")
    rows = read_metrics(tmp_path / "run/metrics.csv")
    assert rows[0]["logit_bias"] == expected
    assert len({each["logit_bias"] for each in rows}) == (len(rows) if loss == "sigmoid" else 1)


class Scalars:
    """Stands in for TensorBoard's writer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, int]] = []
        self.is_closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.seen.append((name, value, step))

    def close(self) -> None:
        self.is_closed = True


def test_tensorboard_gets_the_same_numbers_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars = Scalars()
    monkeypatch.setattr("mmalign.training.metrics._tensorboard_writer", lambda folder, keep_steps: scalars)
    write(tmp_path, [row(1, VAL)])
    assert ("loss", 1.1, 1) in scalars.seen
    assert ("val_score", 1 / 3, 1) in scalars.seen
    assert scalars.is_closed


def validator_of(run: Run) -> Validator:
    pairs = merged_splits(load_sources(run.config.data)).val
    return Validator(run.model, run.config.evaluate, pairs, features_of(run, is_training=True))


@pytest.mark.parametrize("settings", [{}, {"image_tower.frozen": True, "text_tower.frozen": True}])
def test_scores_are_the_recalls_of_the_model(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, object]
) -> None:
    run = create_run(make_config(settings), tmp_path / "run")
    val = validator_of(run).validate()
    items = build_retrieval_set(merged_splits(load_sources(run.config.data)).val, "all")
    features = features_of(run, is_training=False)
    with torch.inference_mode():
        images = run.model.project_image(features.images.of(items.pairs, "val"))
        texts = run.model.project_text(features.texts.of(items.texts, "val"))
    to_text, to_image = recall_both_ways(images, texts, items.relevant)
    assert (val.image_to_text_at_1, val.text_to_image_at_1) == (to_text.at_1, to_image.at_1)
    assert val.score == pytest.approx((sum(to_text.shares()) + sum(to_image.shares())) / 6)


def test_validation_sees_a_tower_as_it_learns(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config({"text_tower.frozen": True}), tmp_path / "run")
    validator = validator_of(run)
    before = validator.validate()
    with torch.no_grad():
        for parameter in run.model.image_tower.parameters():
            parameter.zero_()
    after = validator.validate()  # all images are alike now: ties rank behind
    assert after.score < before.score


def test_a_model_that_is_not_finite_stops_training(make_config: MakeConfig, tmp_path: Path) -> None:
    run = create_run(make_config(), tmp_path / "run")
    validator = validator_of(run)
    with torch.no_grad():
        run.model.image_projection.get_parameter("0.weight")[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite, so the model is not saved"):
        validator.validate()


def test_damaged_validation_image_of_a_frozen_tower_is_found_at_once(
    make_config: MakeConfig, tmp_path: Path, pairs_csv: Path
) -> None:
    for path in pairs_csv.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = {"path": str(tmp_path / "pairs.csv"), "concept_column": "concept"}
    config = make_config({"data.sources": [source], "image_tower.frozen": True})
    run = create_run(config, tmp_path / "run")
    damaged = merged_splits(load_sources(config.data)).val[0].image
    assert isinstance(damaged, Path)
    damaged.write_bytes(b"")
    with pytest.raises(ItemError, match=damaged.name.replace(".", r"\.")):
        validator_of(run)
