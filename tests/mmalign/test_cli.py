from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mmalign.cli import _caption_columns
from mmalign.config import Config, dump_config
from mmalign.evaluation.table import print_evaluation
from mmalign.figures.retrieval import Recall
from mmalign.figures.scores import Evaluation, Scored, SourceScores
from mmalign_runtime.cli import main
from mmalign_runtime.errors import InputError

COMMAND = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()"]


def run(*words: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(words)
    return int(left.value.code or 0)


@pytest.fixture
def evaluation() -> Evaluation:
    def scored(at_1: float) -> Scored:
        return Scored(Recall(at_1, 0.51, 0.62, 5.0), Recall(at_1, 0.48, 0.6, 1234.5), at_1)

    long_name = SourceScores("openmoji", True, 1321, 19300, 9, scored(0.265), scored(0.2), scored(0.004))
    return Evaluation("test", "best", "all", 0.1, (long_name,))


def test_table_fits_80_columns_and_cuts_nothing(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    for words in ("trained", "linear map", "chance", "recall@10", "median rank", "9 classes", "0.265", "1321 images"):
        assert words in printed


def test_train_and_evaluate_from_the_command_line(
    make_config: Callable[..., Config],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[str] = []
    monkeypatch.setattr("mmalign.cli.keep_freed_memory", lambda: kept.append("a verb"))
    (tmp_path / "config.toml").write_text(dump_config(make_config({"text_tower.frozen": True})))
    run_dir = str(tmp_path / "run")
    assert run("train", str(tmp_path / "config.toml"), "--out", run_dir, "--set", "train.epochs=1") == 0
    assert "epoch 1 of 1: loss" in caplog.text
    assert f"{run_dir}: 3 steps, best validation score" in capsys.readouterr().out
    assert run("evaluate", run_dir, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["num_images"] == 6
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "nowhere.toml"), "error: the configuration nowhere.toml cannot be read"),
        (("evaluate", "nowhere"), "error: nowhere is not a run: it has no config.toml"),
        (("evaluate", "run", "--split", "train"), "error: --split 'train' is not known; choose one of test, val"),
        (("evaluate", "run", "--checkpoint", "first"), "error: --checkpoint 'first' is not known; choose one of best"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_2(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1


def test_default_text_tower_without_a_network_ends_in_one_clear_line(pairs_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f'[[data.sources]]\npath = "{pairs_csv}"\nconcept_column = "concept"\n'
        "[data.split]\nval = 0.25\ntest = 0.25\nseed = 59\n"
    )
    words = ["train", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run")]
    command = [*COMMAND, *words, "--set", "image_tower.weights=random"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the weights of text tower 'bert-base-uncased' are not here")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["label", "keywords"], ("label", "keywords")),
        (["en=label", "en=keywords", "zh=label_zh"], {"en": ("label", "keywords"), "zh": ("label_zh",)}),
    ],
)
def test_caption_columns_may_name_their_language(words: list[str], expected: object) -> None:
    assert _caption_columns(words) == expected


@pytest.mark.parametrize("words", [["en=label", "keywords"], ["=label", "de=x"], ["en="]])
def test_a_column_without_a_language_beside_others_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="expected LANGUAGE=COLUMN for each column, such as de=titel"):
        _caption_columns(words)


def test_what_an_earlier_version_wrote_is_read_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    recall = '{"at_1": 0.25, "at_5": 0.5, "at_10": 0.75, "median_rank": 4.0}'
    scored = f'{{"image_to_text": {recall}, "text_to_image": {recall}, "zero_shot_accuracy": null}}'
    source = (
        f'{{"source": "old", "is_held_out": false, "num_images": 4, "num_captions": 4, "num_classes": 0, '
        f'"model": {scored}, "linear_map": {scored}, "chance": {scored}, "num_trained_on": 0}}'
    )
    old = (
        f'{{"split": "test", "checkpoint": "best", "captions": "all", "linear_map_strength": 0.1, '
        f'"sources": [{source}]}}'
    )
    evaluation = msgspec.json.decode(old, type=Evaluation)
    assert evaluation.sources[0].diagnosis is None
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert "0.750" in printed
    assert "nDCG" not in printed
