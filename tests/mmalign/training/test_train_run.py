from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, dump_config, load_dumped
from mmalign.errors import CheckpointError, ConfigError, TrainingError, WeightsError
from mmalign.training import train
from mmalign.training import train_run as train_module
from mmalign.training.inputs import StepInputs
from mmalign.training.metrics import MetricsRow, read_metrics
from mmalign.training.trainer import Trainer
from mmalign_runtime.cli import main
from mmalign_runtime.errors import InputError, ItemError

MakeConfig = Callable[..., Config]
FROZEN: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True}
SETUPS: dict[str, dict[str, object]] = {
    "both towers learn": {"train.epochs": 3},
    "both frozen, with views": {**FROZEN, "train.num_views": 2, "train.epochs": 3},
    "one frozen, dropout": {"text_tower.frozen": True, "model.image_head": {"dropout": 0.2}, "train.epochs": 3},
    "accumulation across epochs": {**FROZEN, "optim.accumulate": 2, "train.epochs": 5, "train.checkpoint_minutes": 0},
    "rare validation": {**FROZEN, "train.epochs": 5, "train.validate_every": 2, "model.image_head": {"kind": "mlp"}},
    "sigmoid loss, residual heads": {**FROZEN, "loss.kind": "sigmoid", "model.image_head": {"kind": "residual"}},
    "chunks of towers that learn": {"train.epochs": 3, "train.chunk_size": 3, "loss.chunk_size": 2},
    "scheduled temperature, soft targets": {
        **FROZEN,
        **{"loss.kind": "soft_targets", "loss.learn_temperature": False, "loss.final_temperature": 0.02},
        **{"loss.caption_share": 0.2, "train.epochs": 3},
    },
    "mined hard negatives": {**FROZEN, "mining.share": 0.5, "mining.every": 2, "mining.start": 0.2, "train.epochs": 3},
    "mined by a tower that learns": {
        **{"text_tower.frozen": True, "mining.share": 0.5, "mining.every": 2, "mining.start": 0.0},
        **{"mining.ramp": 0.0, "train.epochs": 3},
    },
    "heads from the linear map": {
        **FROZEN,
        "model.start": "linear_map",
        "model.image_head": {"standardize_features": True},
        "model.text_head": {"kind": "residual", "standardize_features": True},
    },
    "several heads a side, averaged": {
        **{**FROZEN, "model.num_members": 3, "average.kind": "ema", "average.decay": 0.9, "train.epochs": 3},
        "model.image_head": {"kind": "mlp", "standardize_features": True, "dropout": 0.2},
    },
    "batch statistics": {**FROZEN, "model.image_head": {"standardize_features": True}, "loss.learn_temperature": False},
}
# As many threads as this process has, so that sums are taken in the same order.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()"]


def assert_same_numbers(first: Path, second: Path) -> None:
    """Compare every column of every step, and every tensor of every file."""
    assert (first / "metrics.csv").read_text() == (second / "metrics.csv").read_text()
    for name in ("last.safetensors", "best.safetensors", "frozen.safetensors"):
        one, other = (read_tensors(folder / name).tensors for folder in (first, second))
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []


def interrupted_at(step: int) -> Callable[[Trainer, StepInputs], MetricsRow]:
    take_step = Trainer.step

    def take_or_stop(self: Trainer, inputs: StepInputs) -> MetricsRow:
        if inputs.plan.step == step:
            raise KeyboardInterrupt
        return take_step(self, inputs)

    return take_or_stop


@pytest.mark.parametrize("setup", SETUPS)
def test_interrupted_at_any_step_it_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setup: str
) -> None:
    config = make_config(SETUPS[setup])
    result = train(config, tmp_path / "whole")
    for step in (0, 4, result.num_steps - 1):
        cut = tmp_path / f"cut{step}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", interrupted_at(step))
            train(config, cut)
        assert train(config, cut, resume=True) == result
        assert_same_numbers(cut, tmp_path / "whole")


def test_killed_at_any_moment_it_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is killed, nobody else may train in its folder."""
    dropout = {"model.text_head": {"dropout": 0.1}}
    settings = {"train.epochs": 12, "optim.accumulate": 2, "train.checkpoint_minutes": 0, **dropout}
    config, run_dir = make_config(settings), tmp_path / "run"
    (tmp_path / "config.toml").write_text(dump_config(config))
    command = [*COMMAND, "train", str(tmp_path / "config.toml"), "--out", str(run_dir), "--resume"]
    moments = random.Random(0)
    for num_rows in (0, 14):  # before the first checkpoint, and in the middle
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        while process.poll() is None and not has_rows(run_dir, num_rows):
            time.sleep(0.001)
        if num_rows:
            refused_beside(process, config, run_dir, capsys)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.wait()
    assert len(read_metrics(run_dir / "metrics.csv")) < 36, "it was not killed in time"
    assert (run_dir / ".lock").exists()  # stale: it holds nobody
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(config, run_dir)
    assert not (run_dir / ".lock").exists()
    train(config, run_dir, resume=True)
    train(config, tmp_path / "whole")
    assert_same_numbers(run_dir, tmp_path / "whole")


def refused_beside(
    process: subprocess.Popen[bytes], config: Config, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Try to train in the folder of a process that is training, in every way, and see it go on undisturbed."""
    process.send_signal(signal.SIGSTOP)  # it holds the folder, and leaves the processors alone
    before = (run_dir / "config.toml").stat()
    words = ["train", str(run_dir.parent / "config.toml"), "--out", str(run_dir)]
    for option in ([], ["--resume"]):
        with pytest.raises(SystemExit, match=r"\A2\Z"):
            main([*words, *option])
        assert f"error: {run_dir} is being written by another process" in capsys.readouterr().err
    with pytest.raises(InputError, match="is being written by another process"):
        train(config, run_dir, resume=True)
    assert (run_dir / "config.toml").stat() == before
    num_rows = len(read_metrics(run_dir / "metrics.csv"))
    process.send_signal(signal.SIGCONT)
    while process.poll() is None and not has_rows(run_dir, num_rows + 2):
        time.sleep(0.001)
    assert process.poll() is None, "the first one was disturbed"


def has_rows(run_dir: Path, num_rows: int) -> bool:
    return (run_dir / "metrics.csv").exists() and len(read_metrics(run_dir / "metrics.csv")) >= num_rows


def test_loss_falls_and_the_best_step_is_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    result = train(make_config({"train.epochs": 15, "optim.projection_lr": 0.01, **FROZEN}), tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    losses = [float(row["loss"]) for row in rows]
    scores = {int(row["step"]): float(row["val_score"]) for row in rows if row["val_score"]}
    assert [int(row["step"]) for row in rows] == list(range(1, 46))
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    assert result.num_steps == 45
    assert result.best_score == max(scores.values()) == scores[result.best_step]


def test_frozen_towers_stay_as_they_were_and_learn_once(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config({"image_tower.frozen": True}), tmp_path)
    frozen, learned = (read_tensors(tmp_path / name).tensors for name in ("frozen.safetensors", "best.safetensors"))
    assert {name.split(".")[0] for name in frozen} == {"image_tower"}
    assert {name.split(".")[0] for name in learned} == {
        *("text_tower", "image_projection", "text_projection", "logit_scale")
    }


def test_a_second_run_takes_features_from_the_cache(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({**FROZEN, "train.num_views": 1})
    train(config, tmp_path / "first")
    monkeypatch.setattr("mmalign.features.model_features.ImageFeatures.compute", None)
    monkeypatch.setattr("mmalign.features.model_features.ImageFeatures.compute_view", None)
    monkeypatch.setattr("mmalign.features.model_features.TextFeatures.compute", None)
    train(config, tmp_path / "second")
    assert_same_numbers(tmp_path / "first", tmp_path / "second")


def test_pair_that_poisons_the_loss_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path / "first")
    (features_path,) = (path for path in (tmp_path / "cache").glob("*.npy") if np.load(path).shape == (12, 96))
    features = np.load(features_path)
    features[5, 0] = np.nan
    np.save(features_path, features)
    with pytest.raises(TrainingError, match=r"loss at step [123] is not finite\. .*pairs\.csv, line \d+ \(all 1 in"):
        train(make_config(FROZEN), tmp_path / "second")
    assert (tmp_path / "second" / "bad_batch.txt").read_text().count("pairs.csv, line") == 1
    assert not list((tmp_path / "second").glob("*.tmp"))
    assert not (tmp_path / "second" / "last.safetensors").exists()


def test_weights_that_run_away_stop_training_and_the_checkpoint_is_whole(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_rates(optimizer: torch.optim.Optimizer, step: int, *_: object) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 if step < 4 else 1e30

    monkeypatch.setattr("mmalign.training.trainer.set_learning_rate", raise_rates)
    with pytest.raises(TrainingError, match=r"at step 5 is not finite.*--resume, from step 4; or lower the learning"):
        train(make_config({**FROZEN, "train.checkpoint_minutes": 0}), tmp_path)
    tensors = read_tensors(tmp_path / "last.safetensors").tensors
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_run_is_not_overwritten_and_a_finished_one_resumes_to_itself(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(FROZEN)
    result = train(config, tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(config, tmp_path)
    assert train(config, tmp_path, resume=True) == result
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_what_a_kill_left_half_written_is_removed_on_resume(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(FROZEN)
    train(config, tmp_path)
    (tmp_path / ".last.safetensors.abc.tmp").write_bytes(b"half")
    train(config, tmp_path, resume=True)
    assert not list(tmp_path.glob(".*.tmp"))


def test_resume_with_another_configuration_names_what_differs(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path)
    with pytest.raises(CheckpointError, match=r"another configuration \(optim\.clip_norm, train\.epochs differ\)"):
        train(make_config({**FROZEN, "train.epochs": 9, "optim.clip_norm": 2.0}), tmp_path, resume=True)


def test_resume_takes_over_settings_that_move_no_number(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"train.epochs": 3, "train.checkpoint_minutes": 0}
    train(make_config(settings), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted_at(4))
        train(make_config(settings), tmp_path / "cut")
    changed = {
        **{"train.num_workers": 2, "train.checkpoint_minutes": 9.0, "train.cache_dir": str(tmp_path / "elsewhere")},
        **{"data.on_error": "skip", "evaluate.templates": ["a {}"], "image.limits": {"max_pixels": 12345}},
    }
    config = make_config({**settings, **changed})
    with caplog.at_level("INFO"):
        train(config, tmp_path / "cut", resume=True)
    assert_same_numbers(tmp_path / "cut", tmp_path / "whole")
    assert load_dumped(tmp_path / "cut" / "config.toml") == config
    assert "going on with other values of data.on_error, evaluate.templates, image.limits.max_pixels" in caplog.text


def test_a_resume_that_is_refused_changes_no_setting(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_config(FROZEN), tmp_path)
    before = (tmp_path / "config.toml").read_bytes()
    monkeypatch.setattr(train_module, "identify_pairs", lambda _: "other pairs")
    with pytest.raises(CheckpointError, match="trained on other pairs"):
        train(make_config({**FROZEN, "train.num_workers": 1}), tmp_path, resume=True)
    assert (tmp_path / "config.toml").read_bytes() == before


def test_best_weights_in_the_place_of_the_last_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path)
    (tmp_path / "last.safetensors").write_bytes((tmp_path / "best.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"last\.safetensors holds no state of the optimizer"):
        train(make_config(FROZEN), tmp_path, resume=True)


def test_a_folder_that_cannot_be_made_is_a_named_error(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"file/run cannot be written: Not a directory\. Check --out"):
        train(make_config(FROZEN), tmp_path / "file" / "run")


def test_a_full_disk_at_the_start_is_a_named_error(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmalign.run.folder.write_tensors", fill)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        train(make_config(FROZEN), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_captions_that_are_cut_are_counted_once_at_the_start(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_config({**FROZEN, "text.context_length": 6}), tmp_path)
    lines = [message for message in caplog.messages if "lose their end" in message]
    # Of each concept of training and validation "a red bar" fits and "the picture of a red bar" does not.
    assert lines == ["9 of 18 captions have more than 6 tokens and lose their end (text.context_length)"]


def test_resume_on_other_pairs_is_refused(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_config(FROZEN), tmp_path)
    monkeypatch.setattr(train_module, "identify_pairs", lambda _: "other pairs")
    with pytest.raises(CheckpointError, match="trained on other pairs than the sources hold now"):
        train(make_config(FROZEN), tmp_path, resume=True)


def test_damaged_checkpoint_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(FROZEN), tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be read"):
        train(make_config(FROZEN), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"image_tower.weights": "nowhere.pth"}, WeightsError, r"no file nowhere\.pth"),
        ({"text_tower.name": "no-such-folder"}, WeightsError, "no-such-folder"),
        ({"image_tower.name": "timm:resnet5O"}, ConfigError, "no backbone"),
        ({"train.autocast": "fp16"}, ConfigError, "needs CUDA"),
        (
            {"train.chunk_size": 2, "train.batch_size": 5},
            ConfigError,
            "of 5 pairs into chunks of 2 and of one, and a tow",
        ),
        (
            {"text_tower.frozen_blocks": 2},
            ConfigError,
            r"leaves nothing of the tower to learn\. .*text_tower\.frozen = t",
        ),
        ({"data.split": {"val": 0.0}}, TrainingError, "val split has 0 pairs"),
    ],
)
def test_what_cannot_work_fails_before_anything_is_written(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=message):
        train(make_config(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{}, FROZEN])
def test_damaged_image_stops_training_and_is_named(
    make_config: MakeConfig, pairs_csv: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    for path in pairs_csv.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*-0.png"):  # one drawing of each concept
        path.write_bytes(path.read_bytes()[:99])
    source = {"path": str(tmp_path / "pairs.csv"), "concept_column": "concept"}
    with pytest.raises(ItemError, match=r"pairs\.csv, line \d+: .*-0\.png\), .*replace it"):
        train(make_config({**settings, "data.sources": [source]}), tmp_path / "run")
    result = train(make_config({**settings, "data.sources": [source], "data.on_error": "skip"}), tmp_path / "skipped")
    assert result.num_steps > 0


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        ({"data.stream": {"lanes": 2}}, "data.stream would not be read: no source has stream = true"),
        ({"image_tower.frozen": True, "image_tower.frozen_blocks": 1}, "image_tower.frozen_blocks would not be read"),
        ({"text_tower.frozen": True, "text_tower.frozen_blocks": 1}, "text_tower.frozen_blocks would not be read"),
        ({"train.num_views": 1}, "train.num_views would not be read: image_tower.frozen is false"),
        ({**FROZEN, "optim.layer_decay": 0.5}, "optim.layer_decay would not be read: both towers are frozen"),
        ({**FROZEN, "optim.unfreeze_every": 1}, "optim.unfreeze_every would not be read: both towers are frozen"),
    ],
)
def test_a_setting_that_would_not_be_read_is_refused_before_data_is_read_or_a_folder_begun(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    unread: str,
) -> None:
    monkeypatch.setattr(train_module, "load_sources", None)
    with pytest.raises(ConfigError, match=re.escape(unread)):
        train(make_config(settings), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()
