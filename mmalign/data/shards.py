"""Shards of pairs that are read as training goes, in an order that a seed decides: nothing is read before it is needed.

The shards of an epoch are shuffled and dealt to lanes. A lane reads one after the other, the next epoch's behind this
one's, and shuffles its pairs block by block. Where a lane stands is a few numbers, from which it goes on reading the
same pairs: no more than one shard and one block are read again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mmalign.data import DataConfigError, DataError, DataSource, EmptySourceError, Pair, RejectedRow
from mmalign.data.read import rejection, rows_of_file
from mmalign.data.source import SourceFiles, find_files
from mmalign.seeds import Stream, seed_of

logger = logging.getLogger(__name__)


class Shard(msgspec.Struct, frozen=True):
    """One file of a streamed source."""

    path: Path
    files: SourceFiles


def find_shards(sources: Sequence[DataSource]) -> tuple[Shard, ...]:
    """List the shards of streamed sources. Raises DataError where there are none, or they are files of another kind."""
    shards = []
    for source in sources:
        files = find_files(source)
        if files.format != "webdataset":
            raise DataConfigError(
                f"{source.path} is read as {files.format}, and stream = true is for WebDataset shards. Write it as "
                ".tar files, or remove stream and num_pairs"
            )
        shards += [Shard(path, files) for path in files.paths]
    return tuple(shards)


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a lane stands: where its block begins (epoch, place in its deal, row of the shard), the block's number from
    1 on, and the pairs of it that are taken.
    """

    epoch: int = 0
    place: int = 0
    row: int = 0
    block: int = 0
    taken: int = 0


class Lane:
    """The pairs of one lane, in their order, endlessly."""

    def __init__(
        self,
        shards: Sequence[Shard],
        seed: int,
        number: int,
        num_lanes: int,
        block_size: int,
        *,
        skips: bool = False,
        start: Position | None = None,
    ) -> None:
        self._shards = shards
        self._seed = seed
        self._number = number
        self._num_lanes = num_lanes
        self._block_size = block_size
        self._skips = skips
        self._next = Position() if start is None else start
        self._pairs = self._read(self._next)
        self._start = self._next
        self._block: list[Pair] = []
        self._taken = 0
        if self._start.block:
            self._read_block(self._start.block)
            self._taken = self._start.taken

    @property
    def position(self) -> Position:
        """Return where the lane stands."""
        return msgspec.structs.replace(self._start, taken=self._taken)

    def take(self, count: int) -> list[Pair]:
        """Return the next pairs. Raises DataError where a shard cannot be read."""
        taken: list[Pair] = []
        while len(taken) < count:
            if self._taken == len(self._block):
                self._read_block(self._start.block + 1)
            part = self._block[self._taken : self._taken + count - len(taken)]
            self._taken += len(part)
            taken += part
        return taken

    def _read_block(self, number: int) -> None:
        self._start = msgspec.structs.replace(self._next, block=number)
        self._block, self._taken = [], 0  # taken, and not to be held beside the next one
        try:
            pairs = list(islice(self._pairs, self._block_size))
        except DataError:
            self._pairs = self._read(self._start)  # to the same error: a generator that has raised gives nothing more
            raise
        order = _permutation(len(pairs), seed_of(self._seed, Stream.SHARDS, self._number, number))
        self._block = [pairs[at] for at in order]

    def _read(self, start: Position) -> Iterator[Pair]:
        """Yield the pairs behind a position in the order of the shards, and keep where the next one would be."""
        epoch, place, row = start.epoch, start.place, start.row
        while True:
            order = _permutation(len(self._shards), seed_of(self._seed, Stream.SHARDS, epoch))
            dealt = order[self._number :: self._num_lanes]
            has_some = place > 0 or row > 0
            for at in range(place, len(dealt)):
                for number, pair in self._read_shard(self._shards[dealt[at]], row):
                    has_some = True
                    self._next = Position(epoch, at, number + 1)
                    yield pair
                row = 0
            if not has_some:
                raise EmptySourceError(
                    f"{self._shards[dealt[0]].path} and the other shards of its lane hold no pair; expected one or "
                    "more. Take empty shards out; samples that were skipped are named in the log"
                )
            epoch, place = epoch + 1, 0

    def _read_shard(self, shard: Shard, first: int) -> Iterator[tuple[int, Pair]]:
        """Yield the pairs of a shard from a row on, and the rows' numbers."""
        rejected: list[RejectedRow] = []
        number = 0
        for number, row in enumerate(rows_of_file(shard.path, shard.files, _unread)):
            if number < first:
                continue
            if isinstance(row, Pair):
                yield number, row
            elif self._skips:
                rejected.append(row)
            else:
                raise rejection(row)
        if rejected:
            first_of_all = f"{rejected[0].origin}: {rejected[0].reason}"
            counts = len(rejected), number + 1
            logger.warning("%s: skipped %d of %d rows; the first is %s", shard.path, *counts, first_of_all)


def num_pairs_between(positions: Tensor, num_shards: int, block_size: int) -> tuple[float, float]:
    """Return the least and the most pairs, about, that the shards have, by where all their lanes (L, 5) stand."""
    dealt = torch.tensor([len(range(lane, num_shards, len(positions))) for lane in range(len(positions))])  # (L,)
    epoch, place, _, block, _ = positions.double().unbind(dim=1)
    read = (block - 1).clamp(min=0) * block_size  # pairs before the block, from so many passes
    least = (read / (epoch + (place + 1) / dealt)).sum()
    return least.item(), (read / (epoch + place / dealt)).nan_to_num(math.inf, math.inf).sum().item()


def _unread(image: Path | bytes) -> str:
    """Stand for an image's hash: no two of a stream are compared."""
    return "streamed"


def _permutation(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order
