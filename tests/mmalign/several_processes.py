"""Runs of training in several processes, which know what `torchrun` tells its own.

Argument: a JSON list of groups, each a number of processes and its jobs, taken one group after the other. The processes
are forks of one that has imported torch and all the rest and computed nothing: importing it takes seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from unittest.mock import patch

import msgspec
import torch
from torch import distributed as dist
from transformers.models.bert import modeling_bert  # noqa: F401  (the towers': transformers imports it when it is built)

from mmalign.config import load_config
from mmalign.training import train
from mmalign.training.inputs import StepInputs
from mmalign.training.metrics import MetricsRow
from mmalign.training.trainer import Trainer


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


def main(jobs: tuple[Job, ...]) -> None:
    """Take all jobs, one after the other, in one group of processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for job in jobs:
        take(job)
    dist.destroy_process_group()


def fork(num_processes: int, jobs: tuple[Job, ...]) -> list[int]:
    """Start the processes of a group, and return their exit codes when all have ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
    started = []
    for rank in range(num_processes):
        if (process := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            main(jobs)
            sys.exit()
        started.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in started]


if __name__ == "__main__":
    groups = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[tuple[int, tuple[Job, ...]]])
    sys.exit(max(abs(code) for group in groups for code in fork(*group)))
