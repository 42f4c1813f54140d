from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import CheckpointError
from mmalign.evaluation import evaluate
from mmalign.run import load_run
from mmalign.space import space_id
from mmalign_export.errors import ExportError
from mmalign_export.sources import SourceOptions, read_source


def test_a_run_is_read_with_what_its_bundle_tells_of_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained[0], tmp_path / "somewhere" / "run")
    assert read_source("run", run_dir).model.evaluation is None
    evaluation = evaluate(run_dir)
    model = read_source("run", run_dir).model
    assert model.evaluation == evaluation
    assert len(model.own_pairs) == 4
    assert (model.origin.kind, model.origin.name, model.origin.data) == ("run", "run", ("pairs.csv",))
    best = hashlib.sha256((run_dir / "best.safetensors").read_bytes()).hexdigest()
    assert model.origin.files["best.safetensors"].sha256 == best
    assert model.origin.files.keys() >= {"config.toml", "tokenizer.json", "text_encoder.json", "frozen.safetensors"}


def test_where_a_run_lies_changes_nothing(trained: tuple[Path, Path], tmp_path: Path) -> None:
    first = read_source("run", trained[0]).model
    second = read_source("run", shutil.copytree(trained[0], tmp_path / "run")).model
    assert first.origin == second.origin
    assert space_id(first) == space_id(second)


def test_the_last_checkpoint_is_read_when_asked_for(trained: tuple[Path, Path]) -> None:
    model = read_source("run", trained[0], SourceOptions(checkpoint="last")).model
    assert "last.safetensors" in model.origin.files
    assert "best.safetensors" not in model.origin.files
    expected = load_run(trained[0], "last").model.image_projection.get_parameter("0.weight")
    np.testing.assert_array_equal(model.image.projection.get_parameter("0.weight").detach(), expected.detach())


def test_a_kind_that_is_not_known_names_those_that_are() -> None:
    with pytest.raises(
        ExportError, match=r"the source 'zip' is not known; expected onnx_pair, open_clip, openai, run, "
    ):
        read_source("zip", "model.zip")


def test_a_place_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.toml"):
        read_source("run", tmp_path)
