"""The running statistics of BatchNorm in a tower that runs in chunks, by one process or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from mmalign.distributed import World
from mmalign.errors import ConfigError


@contextmanager
def unchanged_statistics(tower: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while a chunk runs for the second time."""
    layers = _tracking(tower)
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        # Without weight and without a count nothing moves; without statistics other tensors would be saved than before.
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count


@contextmanager
def statistics_in_order(tower: nn.Module, world: World, chunks_of_rank: Sequence[int]) -> Iterator[None]:
    """Leave the running statistics that all chunks would give one after the other, though each process runs its own.

    `chunks_of_rank` is how many of them each process runs. A chunk moves a statistic r to (1 - m) r + m s, so that n of
    them move it to (1 - m)^n r and what they add: every process tells what it adds, and all put it together.
    """
    layers = [layer for layer in _tracking(tower) if layer.training] if world.size > 1 else []
    before = [[tensor.clone() for tensor in _statistics(layer)] for layer in layers]
    yield
    added = []  # for each statistic (W, ...), the own row filled
    for layer, starts in zip(layers, before, strict=True):
        for now, start in zip(_statistics(layer), starts, strict=True):
            rows = torch.zeros(world.size, *now.shape, device=now.device)
            rows[world.rank] = now - _kept_share(layer, chunks_of_rank[world.rank]) * start
            added.append(rows)
    world.add(added)
    of_statistic = iter(added)
    for layer, starts in zip(layers, before, strict=True):
        for now, start in zip(_statistics(layer), starts, strict=True):
            for count, row in zip(chunks_of_rank, next(of_statistic), strict=True):
                start = _kept_share(layer, count) * start + row
            now.data.copy_(start)  # past autograd, which has kept them for the backward pass and does not read them
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked += sum(chunks_of_rank) - chunks_of_rank[world.rank]


def has_batch_statistics(tower: nn.Module) -> bool:
    """Say whether a layer takes statistics of its batch in training."""
    return any(isinstance(layer, _BatchNorm) for layer in tower.modules())


def _tracking(tower: nn.Module) -> list[_NormBase]:
    return [layer for layer in tower.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]


def _statistics(layer: _NormBase) -> list[Tensor]:
    return [tensor for tensor in (layer.running_mean, layer.running_var) if tensor is not None]


def _kept_share(layer: _NormBase, num_chunks: int) -> float:
    if layer.momentum is None:
        raise ConfigError("a layer of a tower has momentum=None, which several processes cannot train. Start one.")
    return float((1 - layer.momentum) ** num_chunks)
