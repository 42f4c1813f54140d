"""Steps of training on shards that are read as it goes: by the process that decodes what is in them.

The lanes of a batch are those of its turn, and turns go round. A worker takes the batches of some turns, and of several
training processes each takes the lanes of its own rows: so a shard is read by one process, and how many there are
changes no batch. Shapes: B batch, b rows of a share, T turns, K lanes of a turn, L text tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import msgspec
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmalign.config import Config
from mmalign.data import DataConfigError, DataError, Pair, SourceError, Splits
from mmalign.data.augment import ImageAugment
from mmalign.data.shards import Lane, Position, Shard, find_shards, num_pairs_between
from mmalign.distributed import World
from mmalign.errors import ConfigError
from mmalign.figures.truncation import check_captions
from mmalign.fingerprint import digest_texts
from mmalign.losses.intra_modal import IntraModal
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule, StepPlan
from mmalign.run.pairs import SourcePairs, augment_pair, identify_pairs
from mmalign.seeds import Stream, seed_of
from mmalign.training.checks import check_streamable
from mmalign.training.inputs import FailedStep, StepInputs, draw_captions, load_steps
from mmalign.training.sides import TowerInputs
from mmalign_runtime.errors import ItemError
from mmalign_runtime.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)

POSITIONS = "shard_positions"  # in a checkpoint: (T, K, 5) int64
_MOST_SKIPPED = 1000  # pairs of a lane one after the other, for one row of a batch
_FAR_OFF = 2  # times: shards are not alike, and few of them were read
_NUM_NAMED_STEPS = 64  # whose pairs can still be named


class ReadPlan(StepPlan, frozen=True, kw_only=True):
    """A step's plan, and what reading it came to in this process.

    `positions` are where its lanes stand behind it, `origins` those of its rows' pairs, and `skipped` says what was
    wrong with pairs that others took the place of.
    """

    positions: tuple[Position, ...]
    origins: tuple[str, ...]
    skipped: tuple[str, ...]


class ShardSteps(Dataset["StepInputs | FailedStep | DataError"]):
    """The steps of training by their plans, each turn's in their order. `numbers` are the lanes of this process."""

    def __init__(
        self,
        config: Config,
        shards: Sequence[Shard],
        tokenizer: TextTokenizer,
        sharing: Sharing,
        numbers: range,
        positions: Tensor | None,
    ) -> None:
        self._config = config
        self._shards = shards
        self._augment = ImageAugment(config.augment, config.image)
        self._tokenizer = tokenizer
        self._sharing = sharing
        self._numbers = numbers
        self._positions = positions  # (T, K, 5)
        self._lanes: dict[int, list[Lane]] = {}  # by turn

    def __getitem__(self, plan: StepPlan) -> StepInputs | FailedStep | DataError:
        """Return the inputs of one step, each pair the positive of itself alone; or what failed."""
        try:
            return self._inputs(plan)
        except ItemError as error:
            return FailedStep(error.index, error.source, error.stage, error.reason)
        except DataError as error:
            return error

    def _inputs(self, plan: StepPlan) -> StepInputs:
        num_rows = len(plan.rows)
        share = range(num_rows)[self._sharing.rows(num_rows)]
        lanes = self._lanes_of(plan.step % self._config.data.stream.turns)
        per_lane, skipped = len(share) // len(lanes), list[str]()
        read = [self._read(plan, row, lanes[at // per_lane], skipped) for at, row in enumerate(share)]
        pairs, views = zip(*read, strict=True)
        images = [TowerInputs((torch.stack(each),)) for each in zip(*views, strict=True)]  # (b, 3, S, S)
        return StepInputs(
            plan=ReadPlan(
                *(plan.step, plan.rows, plan.seed),
                positions=tuple(lane.position for lane in lanes),
                origins=tuple(str(pair.origin) for pair in pairs),
                skipped=tuple(skipped),
            ),
            image=images[0],
            text=self._texts(plan, share, pairs),
            keys=torch.arange(num_rows)[:, None].repeat(1, 2),  # (B, 2)
            view=images[1] if len(images) > 1 else None,
        )

    def _lanes_of(self, turn: int) -> list[Lane]:
        if turn not in self._lanes:
            config, seed = self._config.data.stream, self._config.train.seed
            num_lanes = config.lanes * config.turns
            self._lanes[turn] = [
                Lane(
                    *(self._shards, seed, turn * config.lanes + at, num_lanes, config.block_size),
                    skips=self._config.data.on_error == "skip",
                    start=None if self._positions is None else Position(*self._positions[turn, at].tolist()),
                )
                for at in self._numbers
            ]
        return self._lanes[turn]

    def _read(self, plan: StepPlan, row: int, lane: Lane, skipped: list[str]) -> tuple[Pair, list[Tensor]]:
        """Return the lane's next pair for a row, and the views (3, S, S) of its image.

        With `on_error` "skip" it is the next one that nothing is wrong with; `skipped` takes note of the others.
        """
        for _ in range(_MOST_SKIPPED):
            (pair,) = lane.take(1)
            try:
                return pair, self._views(plan, row, pair)
            except ItemError as error:
                if self._config.data.on_error == "raise":
                    raise
                skipped.append(str(error))
        raise SourceError(
            f"{_MOST_SKIPPED} pairs one after the other cannot be trained on; the last is {skipped[-1]} "
            "Check the shards, and image.limits and text.max_characters"
        )

    def _views(self, plan: StepPlan, row: int, pair: Pair) -> list[Tensor]:
        """Return the views (3, S, S) of a row's image. Raises ItemError, also for its captions."""
        number = plan.rows[row]
        check_captions(pair, self._tokenizer.spec, number)
        with_other = self._config.term(IntraModal) is not None
        streams = (Stream.AUGMENT, Stream.SECOND_VIEW) if with_other else (Stream.AUGMENT,)
        return [augment_pair(pair, self._augment, number, seed_of(plan.seed, stream, row)) for stream in streams]

    def _texts(self, plan: StepPlan, share: range, pairs: Sequence[Pair]) -> TowerInputs:
        """Return ids and mask, (b, L) each, of the captions drawn for this process's rows."""
        counts = [1] * len(plan.rows)  # of other processes' rows they are not known, nor needed
        counts[share.start : share.stop] = [len(pair.captions) for pair in pairs]
        drawn = draw_captions(plan.seed, counts, self._config.augment.first_caption)[share.start : share.stop]
        tokens = self._tokenizer.encode([pair.captions[at] for pair, at in zip(pairs, drawn, strict=True)])
        return TowerInputs((torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)))


class ShardStream:
    """The streamed sources of a run, none of them read yet. Raises DataError and ConfigError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        sources = [source for source in config.data.sources if source.stream]
        self.num_pairs = sum(source.num_pairs or 0 for source in sources)
        self.shards: tuple[Shard, ...] = find_shards(sources)
        lanes, turns, num_workers = config.data.stream.lanes, config.data.stream.turns, config.train.num_workers
        if len(self.shards) < lanes * turns:
            raise DataConfigError(
                f"data.stream has {turns} turns of {lanes} lanes, and the streamed sources have {len(self.shards)} "
                "shards; expected one or more for each lane. Set fewer lanes or turns, or write more and smaller shards"
            )
        if num_workers and turns % num_workers:
            raise ConfigError(
                f"train.num_workers = {num_workers} cannot share data.stream.turns = {turns}: the shards of a turn are "
                "read by one worker. Set turns to a multiple of num_workers, or num_workers to 0"
            )
        self._origins: dict[int, str] = {}
        self._num_skipped, self._told = 0, 0
        self._is_compared = False

    def identify(self, splits: Splits) -> str:
        """Return an id of the data of a run: the shards by their names and sizes, and what is evaluated."""
        names = (f"{shard.path.name} {shard.path.stat().st_size}" for shard in self.shards)
        return digest_texts((identify_pairs(splits), *names))

    def check(self, world: World, sources: Sequence[SourcePairs]) -> None:
        """Raise ConfigError where the shards do not fill a batch, a process would have part of a lane, or a shard is
        one of the listed sources, which are evaluated.
        """
        pairs = [pair for source in sources for side in (source.splits.val, source.splits.test) for pair in side]
        listed = {path.resolve() for path in {pair.origin.source_path for pair in pairs}}
        if both := [str(shard.path) for shard in self.shards if shard.path.resolve() in listed]:
            raise ConfigError(
                f"{both[0]} is streamed, and read by a source that is not: its pairs would be trained on and "
                "evaluated. Narrow one path"
            )
        batch_size = self._config.train.batch_size
        if self.num_pairs < batch_size:
            raise ConfigError(
                f"num_pairs = {self.num_pairs} of the streamed sources is less than train.batch_size = {batch_size}. "
                "Set num_pairs to the number of pairs in all their shards, or a smaller batch_size"
            )
        for rank in range(world.size):
            self.lanes_of(Sharing(self._config.train.chunk_size, rank, world.size), batch_size)

    def lanes_of(self, sharing: Sharing, num_rows: int) -> range:
        """Return the lanes that give a process its rows of a batch. Raises ConfigError where it has part of one."""
        num_lanes = self._config.data.stream.lanes
        rows = sharing.rows(num_rows)
        per_lane, rest = divmod(num_rows, num_lanes)
        if rest or rows.start % per_lane or rows.stop % per_lane:
            raise ConfigError(
                f"a batch of {num_rows} pairs for {sharing.num_processes} processes in chunks of {sharing.chunk_size} "
                f"cannot be cut between {num_lanes} lanes. Set train.batch_size to a multiple of data.stream.lanes, "
                "and that to a multiple of the processes; chunks of a batch must be alike"
            )
        return range(rows.start // per_lane, rows.stop // per_lane)

    def inputs(
        self, schedule: Schedule, tokenizer: TextTokenizer, first_step: int, kept: dict[str, Tensor], world: World
    ) -> Iterator[StepInputs]:
        """Yield the inputs of each step from one on; `kept` then has where all lanes stand behind it.

        Raises ItemError and DataError.
        """
        sharing = Sharing(self._config.train.chunk_size, world.rank, world.size)
        numbers, config = self.lanes_of(sharing, schedule.batch_size), self._config.data.stream
        shape = config.turns, config.lanes, len(Position.__struct_fields__)
        positions = kept.setdefault(POSITIONS, torch.zeros(shape, dtype=torch.int64))  # (T, K, 5)
        steps = ShardSteps(self._config, self.shards, tokenizer, sharing, numbers, positions.clone())
        plans = _plan_steps(schedule, self._config.train.seed, first_step)
        for inputs in load_steps(steps, plans, self._config.train.num_workers):
            plan = inputs.plan
            assert isinstance(plan, ReadPlan)
            now = torch.zeros(shape[1:], dtype=torch.int64)  # (K, 5), zeros for lanes that another process reads
            now[numbers.start : numbers.stop] = torch.tensor([msgspec.structs.astuple(each) for each in plan.positions])
            world.add([now])
            positions[plan.step % config.turns] = now
            if world.is_first and plan.step & (plan.step + 1) == 0:  # at steps 1, 2, 4, 8, ...
                self._compare_num_pairs(positions.flatten(0, 1))
            self._remember(plan.rows[sharing.rows(len(plan.rows))], plan.origins)
            self._tell(plan.skipped)
            yield inputs

    def origin(self, row: int) -> str:
        """Name a pair of one of the last steps."""
        return self._origins.get(row, f"pair {row} of the stream")

    def _compare_num_pairs(self, positions: Tensor) -> None:
        """Warn once where `num_pairs` is far from what was read, by where all lanes (L, 5) stand."""
        least, most = num_pairs_between(positions, len(self.shards), self._config.data.stream.block_size)
        if self._is_compared or least / _FAR_OFF <= self.num_pairs <= most * _FAR_OFF:
            return
        self._is_compared = True
        bound, count = ("least", least) if self.num_pairs < least else ("most", most)
        logger.warning(
            "by what was read so far the shards have about %.0f pairs at %s, and num_pairs says %d: an epoch is not a "
            "pass over them",
            *(count, bound, self.num_pairs),
        )

    def _tell(self, skipped: Sequence[str]) -> None:
        """Log pairs that were skipped, each time that there are twice as many."""
        self._num_skipped += len(skipped)
        if skipped and self._num_skipped >= 2 * self._told:
            self._told = self._num_skipped
            logger.warning("pairs skipped so far: %d; the last: %s", self._num_skipped, skipped[-1])

    def _remember(self, rows: Sequence[int], origins: Sequence[str]) -> None:
        self._origins |= dict(zip(rows, origins, strict=True))
        for row in list(self._origins)[: max(0, len(self._origins) - _NUM_NAMED_STEPS * len(rows))]:
            del self._origins[row]


def _plan_steps(schedule: Schedule, seed: int, first_step: int) -> Iterator[StepPlan]:
    """Yield plans whose rows count through all steps: what they are is known when they are read."""
    for step in range(first_step, schedule.num_steps):
        rows = range(step * schedule.batch_size, (step + 1) * schedule.batch_size)
        yield StepPlan(step, tuple(rows), seed_of(seed, schedule.epoch_of(step), step))


def open_stream(config: Config) -> ShardStream | None:
    """Return the streamed sources of a run, None where there are none. Raises DataError, and ConfigError for settings
    that need a list of all pairs.
    """
    if not any(source.stream for source in config.data.sources):
        return None
    check_streamable(config)
    return ShardStream(config)
