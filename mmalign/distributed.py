"""Several processes that train one model, as `torchrun` starts them, and what they tell each other.

Every process takes its share of each batch through the towers that learn. Features are gathered with their gradients,
so that heads and loss see the whole batch in every process, as in a run of one. A process alone is a `World` whose
methods do nothing. Shapes: B batch, F features.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist

from mmalign.errors import ConfigError, OtherProcessError, TrainingError

# Longer than any work that the others wait for: features of a frozen tower take hours. A process that ends is noticed
# at once by gloo, and by torchrun otherwise.
_PATIENCE = timedelta(days=30)
_BUCKET_NUMBERS = 2**24  # numbers that are sent together: 64 MB of float32


class World:
    """The processes of a run: here one alone, for which there is nothing to do."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Say whether this process is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes are here."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in each tensor's place, the same bits in every process."""

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process has in each tensor's place."""

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Let the first process do what the block says, and then the others, which find what it has written."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


class Group(World):
    """Several processes, joined by torch.distributed. Each method raises OtherProcessError when another one is gone."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._device = device

    def wait(self) -> None:
        """Return when all processes are here."""
        self.add([torch.zeros(1)])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in each tensor's place, the same bits in every process."""
        for bucket in _buckets(tensors):
            self._exchange(bucket, lambda flat: dist.all_reduce(flat))

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process has in each tensor's place."""
        for bucket in _buckets(tensors):
            self._exchange(bucket, lambda flat: dist.broadcast(flat, src=0))

    def _exchange(self, tensors: Sequence[Tensor], collective: Any) -> None:  # noqa: ANN401
        flat = torch.cat([tensor.detach().reshape(-1).to(self._device) for tensor in tensors])
        with named_failures():
            collective(flat)
        with torch.no_grad():
            for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))


ALONE = World()


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that `torchrun` started, or those of a group that is there already; without any, be alone.

    Raises OtherProcessError when they cannot be reached.
    """
    if dist.is_initialized():
        yield Group(device)
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
    else:
        with named_failures():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        try:
            yield Group(device)
        except BaseException:
            if device.type == "cpu":  # gloo tells the others; NCCL would wait for them, and torchrun ends them
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()


@contextmanager
def named_failures() -> Iterator[None]:
    """Raise OtherProcessError for what torch.distributed raises when a process is gone: RuntimeError and its kinds."""
    try:
        yield
    except RuntimeError as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OtherProcessError(
            f"another process of this run has ended ({first_line}). Its own message says why; mend that, start all "
            "processes again, and go on with --resume."
        ) from error


def is_first_process() -> bool:
    """Say whether this process is the first of those that `torchrun` started, before they are joined."""
    return os.environ.get("RANK", "0") == "0"


def local_device(kind: str) -> torch.device:
    """Return this process's own device of a kind, "cpu" or "cuda". Raises ConfigError when there are too few GPUs."""
    rank = os.environ.get("LOCAL_RANK")
    if kind != "cuda" or rank is None:
        return torch.device(kind)
    if int(rank) >= torch.cuda.device_count():
        raise ConfigError(
            f"process {rank} of this machine has no GPU: torch sees {torch.cuda.device_count()}. Start as many "
            'processes as there are GPUs (--nproc-per-node), or set train.device = "cpu".'
        )
    torch.cuda.set_device(int(rank))
    return torch.device("cuda", int(rank))


def check_agreement(world: World, setup: str) -> None:
    """Raise TrainingError in a process whose configuration and data, in words, are not those of the first."""
    own = torch.tensor(list(hashlib.sha256(setup.encode()).digest()), dtype=torch.uint8)
    first = own.clone()
    world.take_from_first([first])
    if not torch.equal(own, first):
        raise TrainingError(
            f"process {world.rank} has another configuration or reads other pairs than the first process. Start all "
            "with the same arguments, on the same data."
        )


def gather_rows(world: World, share: Tensor, rows: slice, num_rows: int) -> Tensor:
    """Return a whole batch (B, F) whose `rows` are this process's share; its gradient goes back to that share.

    Every process takes the same loss of the whole, so that the gradient of a share is here already.
    """
    if world.size == 1:
        return share
    return cast("Tensor", _Gathered.apply(share, world, rows, num_rows))


def add_gradients(world: World, of_shares: Iterable[Tensor], of_wholes: Iterable[Tensor]) -> None:
    """Make the gradients those of the whole batch in every process.

    `of_shares` are parameters that saw a share of it: their gradients are added. `of_wholes` saw all of it in every
    process: they take the mean, which differs from each one's by rounding at most, and is the same bits everywhere.
    """
    if world.size == 1:
        return
    wholes = [parameter.grad for parameter in of_wholes if parameter.grad is not None]
    for gradient in wholes:
        gradient /= world.size
    world.add([*wholes, *(parameter.grad for parameter in of_shares if parameter.grad is not None)])


class _Gathered(torch.autograd.Function):
    """A share to the whole batch; in float32, since gloo adds no half precision."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, world: World, rows: slice, num_rows: int) -> Tensor:  # noqa: ANN401
        ctx.rows = rows
        whole = torch.zeros(num_rows, *share.shape[1:], device=share.device)  # (B, F)
        whole[rows] = share.float()
        world.add([whole])
        return whole.to(share.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        return gradient[ctx.rows], None, None, None


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in groups of one type, each of about `_BUCKET_NUMBERS` numbers."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        bucket = by_type.setdefault(tensor.dtype, [])
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= _BUCKET_NUMBERS:
            yield by_type.pop(tensor.dtype)
    yield from by_type.values()
