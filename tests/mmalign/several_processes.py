"""Runs of training in several processes: what `torchrun` starts for the tests. Its argument is a JSON list of jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import msgspec
import torch
from torch import distributed as dist

from mmalign.config import load_config
from mmalign.inputs import StepInputs
from mmalign.metrics import MetricsRow
from mmalign.trainer import Trainer
from mmalign.training import train


class Job(msgspec.Struct, frozen=True):
    """One run: its configuration, its folder, and the step at which it is cut, -1 for none; a folder that is there
    is gone on with.
    """

    config: str
    run_dir: str
    stop_at: int = -1


def take(job: Job) -> None:
    """Train until the step of the cut, or to the end."""
    take_step = Trainer.step

    def take_or_stop(self: Trainer, inputs: StepInputs) -> MetricsRow:
        if inputs.plan.step == job.stop_at:
            raise KeyboardInterrupt
        return take_step(self, inputs)

    with patch.object(Trainer, "step", take_or_stop):
        try:
            train(load_config(job.config), job.run_dir, resume=True)
        except KeyboardInterrupt:
            assert job.stop_at >= 0


def main() -> None:
    """Take all jobs, one after the other, in one group of processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for job in msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[Job]):
        take(job)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
