"""What of a run cannot be written is a CheckpointError that names the file; another error stays what it is."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.config import Config
from mmalign.errors import CheckpointError
from mmalign.evaluation import EVALUATION, evaluate
from mmalign.run import RunFolder, write_trained_images
from mmalign.training import train
from mmalign.writing import named_writes

FROZEN = {"image_tower.frozen": True, "text_tower.frozen": True, "train.epochs": 1}


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path: Path) -> None:
    expected = r"a\.txt cannot be written: No space left on device\. Make room\."
    with pytest.raises(CheckpointError, match=expected), named_writes(tmp_path / "a.txt", "Make room."):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="another"), named_writes(tmp_path):
        raise ValueError("another")


def test_the_list_of_images_trained_on(tmp_path: Path) -> None:
    (tmp_path / "trained_images.txt").mkdir()
    with pytest.raises(CheckpointError, match=r"trained_images\.txt.* cannot be written: .*Check --out"):
        write_trained_images(RunFolder(tmp_path), [])


def test_an_evaluation(make_config: Callable[..., Config], tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path / "run")
    (tmp_path / "run" / EVALUATION).mkdir()
    with pytest.raises(CheckpointError, match=r"evaluation\.json.* cannot be written: .*Check the run's folder"):
        evaluate(tmp_path / "run")
