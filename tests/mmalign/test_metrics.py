from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.metrics import COLUMNS, MetricsLog, MetricsRow, Validation, read_metrics

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
    monkeypatch.setattr("mmalign.metrics._tensorboard_writer", lambda folder, keep_steps: scalars)
    write(tmp_path, [row(1, VAL)])
    assert ("loss", 1.1, 1) in scalars.seen
    assert ("val_score", 1 / 3, 1) in scalars.seen
    assert scalars.is_closed
