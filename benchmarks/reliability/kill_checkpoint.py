"""kill -9 in the middle of training and of checkpoint writes: python -m benchmarks.reliability kill_checkpoint

Half of the kills meet a real training run of tiny towers that saves after every step, each going on where the last
was killed; in the end the run must hold the same numbers as one that nobody killed. The other half meet nothing but
writes of a larger checkpoint, whose every number says in which step it was written.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

import msgspec
import torch

import mmalign.checkpoints.checkpoint as checkpoint_module
from benchmarks.reliability.record import Row, fell_into, record
from benchmarks.reliability.trials import Killed, Phases, kill_at, measure, moments
from mmalign.checkpoints.checkpoint import Progress, restore, save_best, save_last
from mmalign.checkpoints.tensors import read_tensors
from mmalign.config import Config, parse_config
from mmalign.model import DualEncoder
from mmalign.run import load_run
from mmalign.training import train
from mmalign_runtime.errors import MmalignError
from tests.make_tiny_bundle import tiny_run, tiny_tokenizer
from tests.mmalign.conftest import COLORS, SHAPES, SPLIT_SEED, draw

NUM_TRIALS = 50
_EPOCHS = 200
# A killed run gets so far past its start, in the time that an uninterrupted one needs from start to end.
_SHARE_OF_RUN = 0.06
_NUM_SAVES = 20
_PADDING = 4_000_000  # float32 numbers: a checkpoint of 16 MB and more takes long enough to be hit


class Trial(msgspec.Struct, frozen=True):
    """One kill, the step that the checkpoint holds after it, and what was wrong with it, if anything."""

    kind: str
    killed: Killed
    step: int
    fault: str


class Details(msgspec.Struct, frozen=True):
    """All trials, and whether the run that was killed ended as the one that was not."""

    trials: tuple[Trial, ...]
    ends_the_same: bool
    left_in_run: tuple[str, ...]


def kill_training(folder: Path, num_trials: int, seed: int) -> tuple[list[Trial], bool, tuple[str, ...]]:
    """Kill one run again and again, let it end, and compare it with an uninterrupted one."""
    config, phases = _tiny_config(folder), Phases(folder / "phases")
    phases.wrap(checkpoint_module, "write_tensors", "writing a checkpoint", after="between two checkpoints")
    duration_s = measure(partial(_train, config, folder / "whole", phases), 1)
    killed_dir = folder / "killed"
    work = partial(_train, config, killed_dir, phases)
    trials, step = [], 0
    for after_s in moments(duration_s * _SHARE_OF_RUN, num_trials, seed):
        killed = kill_at(work, after_s, phases.path)
        found, fault = _inspect_run(killed_dir)
        fault = fault or (f"went back from step {step}" if found < step else "")
        trials.append(Trial("training", killed, found, fault))
        step = found
        print(f"training {killed.after_ms:.0f} ms, {killed.phase}: step {found} {fault}", file=sys.stderr)
    train(config, killed_dir, resume=True)
    names = ("last.safetensors", "best.safetensors", "metrics.csv")
    ends_the_same = all(_contents(killed_dir / name) == _contents(folder / "whole" / name) for name in names)
    return trials, ends_the_same, tuple(sorted(path.name for path in killed_dir.glob(".*")))


def kill_saves(folder: Path, num_trials: int, seed: int) -> list[Trial]:
    """Kill a process that does nothing but save."""
    model, phases = tiny_run(folder / "tiny").model, Phases(folder / "phases")
    model.register_parameter("padding", torch.nn.Parameter(torch.zeros(_PADDING)))
    optimizer = optimizer_of(model)
    last, best = folder / "last.safetensors", folder / "best.safetensors"
    save_last(last, model, optimizer, Progress())
    work = partial(_save_often, model, optimizer, folder, phases)
    duration_s = measure(work, 2)
    trials = []
    for after_s in moments(duration_s, num_trials, seed):
        killed = kill_at(work, after_s, phases.path)
        try:
            steps = {_progress(path).step for path in (last, best) if path.exists()}
            values, step = _distinct(last), restore(last, model, optimizer).step
            fault = "" if max(steps) - min(steps) <= 1 and values == {float(step)} else f"steps {steps}, {values}"
        except MmalignError as error:
            step, fault = -1, str(error)
        trials.append(Trial("saves", killed, step, fault))
        print(f"saves {killed.after_ms:.0f} ms, {killed.phase}: step {step} {fault}", file=sys.stderr)
    return trials


def optimizer_of(model: DualEncoder) -> torch.optim.Optimizer:
    """Return an optimizer with a state, which a checkpoint to go on from must hold; it moves no parameter."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def _train(config: Config, folder: Path, phases: Phases) -> None:
    phases.enter("reading data, model and checkpoint")
    train(config, folder, resume=True)


def _save_often(model: DualEncoder, optimizer: torch.optim.Optimizer, folder: Path, phases: Phases) -> None:
    start = restore(folder / "last.safetensors", model, optimizer).step
    for step in range(start + 1, start + 1 + _NUM_SAVES):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float(step))
        phases.enter("writing last.safetensors")
        save_last(folder / "last.safetensors", model, optimizer, Progress(step=step))
        phases.enter("writing best.safetensors")
        save_best(folder / "best.safetensors", model, Progress(step=step))


def _distinct(path: Path) -> set[float]:
    """Return the distinct values of a checkpoint's parameters: one, when it was written in one step."""
    tensors = read_tensors(path).tensors
    names = [name for name in tensors if name.endswith(("weight", "bias", "padding"))]
    ends = [tensors[name].flatten()[[0, -1]] for name in names if "running" not in name]
    return set(torch.cat(ends).tolist())


def _progress(path: Path) -> Progress:
    return msgspec.json.decode(read_tensors(path).metadata["progress"], type=Progress)


def _inspect_run(folder: Path) -> tuple[int, str]:
    """Return the step of the run's last checkpoint, and what is wrong with the run, if anything."""
    try:
        if not (folder / "last.safetensors").exists():
            return 0, ""
        progress = _progress(folder / "last.safetensors")
        load_run(folder, "last")
        if progress.best_step:
            load_run(folder, "best")
        with (folder / "metrics.csv").open() as rows:
            num_done = sum(1 for _ in csv.DictReader(rows))
    except MmalignError as error:
        return -1, str(error)
    is_done = progress.step <= num_done
    return progress.step, "" if is_done else f"step {progress.step} is saved, {num_done} are in metrics.csv"


def _contents(path: Path) -> bytes:
    """Return what a file says, to the last bit. The order of metadata in a safetensors file is not the same twice."""
    if path.suffix == ".csv":
        return path.read_bytes()
    file = read_tensors(path)
    named = {name: tensor.numpy().tobytes() for name, tensor in file.tensors.items()}
    return msgspec.json.encode((named, file.metadata), order="sorted")


def _tiny_config(folder: Path) -> Config:
    encoder, pairs = folder / "encoder", folder / "pairs"
    for path in (encoder, pairs):
        path.mkdir()
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(encoder / "tokenizer.json"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    architecture = {"model_type": "bert", "vocab_size": tokenizer.get_vocab_size(), **sizes}
    (encoder / "config.json").write_text(json.dumps(architecture | {"max_position_embeddings": 24}))
    with (pairs / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for drawing, (color, shape) in itertools.product(range(4), itertools.product(COLORS, SHAPES)):
            name = f"{color}-{shape}-{drawing}.png"
            draw(color, shape, drawing).save(pairs / name)
            writer.writerow([name, f"a photo of a {color} {shape}"])
    settings: dict[str, object] = {
        "data": {
            "sources": [{"path": str(pairs / "pairs.csv")}],
            "split": {"val": 0.25, "test": 0.25, "seed": SPLIT_SEED},
        },
        "image": {"size": 32},
        "text": {"context_length": 12},
        "image_tower": {"name": "timm:test_resnet", "weights": "random", "frozen": True},
        "text_tower": {"name": str(encoder), "weights": "random", "pooling": "mean"},
        "model": {"embed_dim": 16},
        "train": {
            **{"epochs": _EPOCHS, "batch_size": 3, "device": "cpu", "num_workers": 0, "checkpoint_minutes": 0},
            "cache_dir": str(folder / "cache"),
        },
    }
    return parse_config(settings, "the tiny configuration")


def _run_trials(num_trials: int, seed: int) -> Details:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("training", "saves"):
            (folder / kind).mkdir()
        trials, ends_the_same, left = kill_training(folder / "training", num_trials - num_trials // 2, seed)
        return Details((*trials, *kill_saves(folder / "saves", num_trials // 2, seed)), ends_the_same, left)


def run(trials: int = NUM_TRIALS, seed: int = 0) -> None:
    """Kill, look, and record."""
    torch.set_num_threads(1)  # a forked child has none of its parent's threads
    logging.disable(logging.WARNING)
    details = _run_trials(trials, seed)
    good = sum(not trial.fault for trial in details.trials)
    same = "the same numbers, bit for bit, as" if details.ends_the_same else "OTHER numbers than"
    measured = (
        f"{fell_into(trial.killed.phase for trial in details.trials)}; the run that was "
        f"killed and went on ended with {same} one that nobody killed; temporary files left in it: "
        f"{len(details.left_in_run)}"
    )
    row = Row("kill -9 in training and in checkpoint writes", trials, good, measured)
    record("kill_checkpoint", [row], details, is_kept=trials >= NUM_TRIALS)
