"""Real processes, joined by gloo, against one process with the same global batch; what torchrun starts, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mmalign.config import Config, dump_config
from mmalign.losses.distillation import Distillation
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.term import Term
from mmalign.optim import Schedule, plan_steps
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training import train
from mmalign.training.metrics import read_metrics
from mmalign_runtime.bulk.locking import only_writer
from mmalign_runtime.errors import InputError
from tests.mmalign.several_processes import Job, take
from tests.mmalign.shards import write_drawings
from tests.tolerances import PROCESSES_LOSS, PROCESSES_NORM

MakeConfig = Callable[..., Config]
ROOT = Path(__file__).parents[3]
TEACHER = str(ROOT / "tests/runtime/fixtures/tiny_bundle")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
NUM_STEPS = 8  # an epoch has one
COMMON: dict[str, object] = {
    **{"train.epochs": NUM_STEPS, "train.batch_size": 10, "train.validate_every": 4, "train.checkpoint_minutes": 0},
    **{"optim.projection_lr": 3e-3, "loss.chunk_size": 4},
}
FROZEN_IMAGES: dict[str, object] = {"image_tower.frozen": True, "train.num_views": 1}
FROZEN: dict[str, object] = {**FROZEN_IMAGES, "text_tower.frozen": True}
ALL_TERMS = (Matryoshka(dims=(4,)), IntraModal(weight=0.5), Distillation(teacher=TEACHER))
# Chunks of at most three of ten rows: 3, 3, 2 and 2. The text tower has dropout.
SETUPS: dict[str, tuple[dict[str, object], tuple[Term, ...]]] = {
    "frozen towers, batch statistics and dropout of heads, hard negatives": (
        {
            **{**FROZEN, "model.image_head": {"standardize_features": True, "dropout": 0.2}},
            **{"loss.kind": "hard_negatives", "loss.max_caption_similarity": 0.9},
        },
        (),
    ),
    "frozen towers, all terms, sigmoid, several heads a side": (
        {**FROZEN, "loss.kind": "sigmoid", "model.num_members": 2},
        ALL_TERMS,
    ),
    "a text tower that learns": ({**FROZEN_IMAGES, "train.chunk_size": 3}, ()),
    "towers that learn, all terms, soft targets, accumulation, mining": (
        {
            **{"train.chunk_size": 3, "loss.kind": "soft_targets", "loss.caption_share": 0.2, "optim.accumulate": 2},
            **{"mining.share": 0.3, "mining.every": 3, "mining.start": 0.0},
            "image_tower.name": "timm:test_convnext",  # the gradients of batches of three in a ResNet double an error
            "train.epochs": 6,  # steps of a tenth of a second, which a cut run takes too
        },
        ALL_TERMS,
    ),
}


def torchrun(num_processes: int, *arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    return [*launcher, *arguments]


def several(groups: list[tuple[int, list[Job]]], path: Path) -> None:
    """Take the jobs of each group in its number of processes."""
    path.write_bytes(msgspec.json.encode(groups))
    command = [sys.executable, "-m", "tests.mmalign.several_processes", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:6000]


def columns(run_dir: Path, *names: str) -> list[list[float]]:
    rows = read_metrics(run_dir / "metrics.csv")
    return [[float(row[name]) for row in rows if row[name]] for name in names]


def from_shards(pairs_csv: Path, folder: Path) -> dict[str, object]:
    """Return the settings of a run that reads eight shards as it goes, in four lanes."""
    streamed = {"path": write_drawings(pairs_csv, folder, 8), "stream": True, "num_pairs": 24}
    return {
        "data.sources": [{"path": str(pairs_csv), "concept_column": "concept"}, streamed],
        "data.stream": {"lanes": 4, "turns": 2, "shuffle": 16},
        **{"image_tower.name": "timm:test_convnext", "text_tower.frozen": True},
        **{"train.batch_size": 8, "train.chunk_size": 2, "train.epochs": 3, "optim.projection_lr": 1e-2},
    }


def test_any_number_of_processes_is_the_run_of_one(make_config: MakeConfig, pairs_csv: Path, tmp_path: Path) -> None:
    """One, two and four processes whole, and one run cut twice that goes on in other numbers of them: 2, 4, 1."""
    runs = {}
    streamed = {"shards that are read as training goes": (from_shards(pairs_csv, tmp_path / "shards"), tuple[Term]())}
    for setup, (settings, terms) in (SETUPS | streamed).items():
        config = msgspec.structs.replace(make_config({**COMMON, **settings}), terms=terms)
        num_steps = config.train.epochs * (3 if setup in streamed else 1)
        runs[setup] = num_steps, str(tmp_path / f"{len(runs)}.toml")
        Path(runs[setup][1]).write_text(dump_config(config))

    def jobs(name: str, share: float = 1.0) -> list[Job]:
        return [Job(config, f"{config} {name}", int(share * steps)) for steps, config in runs.values()]

    groups = [(2, [*jobs("two"), *jobs("cut", 0.4)]), (4, [*jobs("four"), *jobs("cut", 0.8)])]
    several(groups, tmp_path / "groups.json")
    for job in [*jobs("one"), *jobs("cut")]:
        take(job)
    for setup, (steps, config) in runs.items():
        losses, norms, scores = columns(Path(f"{config} one"), "loss", "gradient_norm", "val_score")
        assert len(losses) == steps
        assert losses[-1] < 0.98 * losses[0], setup
        for name in ("two", "four", "cut"):
            found, found_norms, found_scores = columns(Path(f"{config} {name}"), "loss", "gradient_norm", "val_score")
            assert found == pytest.approx(losses, abs=PROCESSES_LOSS.bound, rel=0), (setup, name)
            assert found_norms == pytest.approx(norms, rel=PROCESSES_NORM.bound), (setup, name)
            assert len(found_scores) == len(scores)


def workers_of(launcher: int) -> list[int]:
    """Return the processes that torchrun has started, by rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks = {}
    for child in children:
        settings = dict(each.partition("=")[::2] for each in Path(f"/proc/{child}/environ").read_text().split("\0"))
        if "RANK" in settings:
            ranks[int(settings["RANK"])] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


def wait_until_free(run_dir: Path) -> None:
    """Return when the system has taken the lock from a process that was killed."""
    while True:
        with contextlib.suppress(InputError), only_writer(run_dir):
            return
        time.sleep(0.01)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `mmalign train` in two processes, and waits for a number of rows of metrics."""
    launched = []

    def start(config: Path, run_dir: Path, num_rows: int) -> subprocess.Popen[str]:
        command = torchrun(2, "-m", "mmalign", "train", str(config), "--out", str(run_dir), "--resume")
        with (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=stderr, stderr=stderr, text=True)
        launched.append(process)
        metrics = run_dir / "metrics.csv"
        while process.poll() is None and not (metrics.exists() and len(read_metrics(metrics)) >= num_rows):
            time.sleep(0.01)
        return process

    yield start
    for process in launched:
        process.kill()
        process.wait()


def test_a_process_or_all_of_them_are_killed_and_the_run_goes_on_to_the_same_numbers(
    make_config: MakeConfig, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    config = make_config({**COMMON, **FROZEN_IMAGES, "train.chunk_size": 3, "train.epochs": 48})
    (tmp_path / "config.toml").write_text(dump_config(config))
    process = started(tmp_path / "config.toml", tmp_path / "run", 4)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    assert process.wait(60) == 1
    told = (tmp_path / "stderr").read_text()
    assert "error: another process of this run has ended" in told or "SIGTERM" in told
    process = started(tmp_path / "config.toml", tmp_path / "run", 12)
    for pid in [process.pid, *workers_of(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    wait_until_free(tmp_path / "run")
    num_rows = len(read_metrics(tmp_path / "run" / "metrics.csv"))
    assert 12 <= num_rows < 48, "it was not killed in time"
    train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "whole")
    (found,), (losses,) = (columns(tmp_path / name, "loss") for name in ("run", "whole"))
    assert found == pytest.approx(losses, abs=PROCESSES_LOSS.bound, rel=0)


def test_an_error_in_one_process_is_told_and_ends_all(
    make_config: MakeConfig, pairs_csv: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """The images of the last rows of a batch are damaged, which the second process alone decodes."""
    for path in pairs_csv.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = {"train.chunk_size": 5, "data.sources": [{"path": str(tmp_path / "pairs.csv")}]}
    config = make_config({**COMMON, **settings, "data.split": {"val": 0.25, "test": 0.0, "seed": 0}})
    (tmp_path / "config.toml").write_text(dump_config(config))
    plan = next(plan_steps(Schedule(18, 10, NUM_STEPS), config.train.seed))
    damaged = merged_splits(load_sources(config.data)).train[plan.rows[-1]].image
    assert isinstance(damaged, Path)
    damaged.write_bytes(damaged.read_bytes()[:99])
    process = started(tmp_path / "config.toml", tmp_path / "run", 99)
    assert process.wait(60) == 1
    told = (tmp_path / "stderr").read_text()
    assert f"{damaged.name}), " in told
    assert "replace it" in told
    assert told.count("Traceback (most") == 1, "that of torchrun"
