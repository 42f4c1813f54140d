"""A batch cut into chunks: what a tower runs over at a time, and what each of several processes takes.

For a batch larger than memory this gives the exact gradients of the whole (GradCache). As in Gao et al. 2021 each chunk
runs twice: forward without keeping activations, and again when the loss of the whole batch has given its gradient
(torch's checkpointing, Chen et al. 2016). A process with one chunk runs it once. Dropout is seeded by the chunk, and
what a layer computes over its batch, as BatchNorm does in training, is computed over a chunk: so neither depends on
which process runs it. Heads and losses see the whole batch. Shapes: B batch, b rows of a share, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmalign.errors import ConfigError
from mmalign.model import DualEncoder, is_frozen
from mmalign.model.batch_statistics import has_batch_statistics, unchanged_statistics
from mmalign.seeds import seed_of


class Chunk(msgspec.Struct, frozen=True):
    """Some rows of a batch: the chunk's number, its first row, and how many there are."""

    index: int
    start: int
    size: int


class Sharing(msgspec.Struct, frozen=True):
    """How a batch is cut, into chunks of at most `chunk_size` rows, and which of these process `rank` takes.

    With a `chunk_size` of 0 there is one chunk a process.
    """

    chunk_size: int = 0
    rank: int = 0
    num_processes: int = 1

    def chunks(self, num_rows: int) -> list[Chunk]:
        """Return all chunks of a batch, as even as can be: BatchNorm fails on a last one of one item."""
        count = math.ceil(num_rows / self.chunk_size) if self.chunk_size else self.num_processes
        size, larger = divmod(num_rows, count)
        sizes = [size + 1] * larger + [size] * (count - larger)
        return [Chunk(index, sum(sizes[:index]), each) for index, each in enumerate(sizes)]

    def own(self, num_rows: int, rank: int | None = None) -> list[Chunk]:
        """Return the chunks that process `rank` takes, this one where it is left out: a run of neighbours."""
        rank, chunks = self.rank if rank is None else rank, self.chunks(num_rows)
        first, end = (len(chunks) * at // self.num_processes for at in (rank, rank + 1))
        return chunks[first:end]

    def rows(self, num_rows: int) -> slice:
        """Return which rows of a batch this process takes."""
        own = self.own(num_rows)
        return slice(own[0].start, own[-1].start + own[-1].size)

    def check(self, num_rows: int, model: DualEncoder) -> None:
        """Raise ConfigError where several processes cannot make the run that one makes."""
        if self.num_processes == 1:
            return
        if (count := len(self.chunks(num_rows))) < self.num_processes:
            raise ConfigError(
                f"a batch of {num_rows} pairs in chunks of {self.chunk_size} is {count} chunks, too few for "
                f"{self.num_processes} processes. Set train.chunk_size to {num_rows // self.num_processes} or less."
            )
        towers = [tower for tower in (model.image_tower, model.text_tower) if not is_frozen(tower)]
        if not self.chunk_size and any(has_batch_statistics(tower) for tower in towers):
            raise ConfigError(
                "a tower that learns has BatchNorm, whose statistics are those of a chunk, so that they are the same "
                f"however many processes there are. Set train.chunk_size, to {num_rows // self.num_processes} for one "
                "chunk a process, or freeze the tower."
            )


def run_in_chunks(tower: nn.Module, inputs: tuple[Tensor, ...], chunks: Sequence[Chunk], seed: int) -> Tensor:
    """Return the features (b, F) of inputs (b, ...), the rows of `chunks`, of which dropout draws from `seed`."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), unchanged_statistics(tower)

    features = []
    sizes = [chunk.size for chunk in chunks]
    for chunk, *tensors in zip(chunks, *(torch.split(tensor, sizes) for tensor in inputs), strict=True):
        torch.manual_seed(seed_of(seed, chunk.index))
        if len(chunks) == 1:
            return cast("Tensor", tower(*tensors))
        features.append(checkpoint(tower, *tensors, use_reentrant=False, context_fn=contexts))
    return torch.cat(features)  # (b, F)
