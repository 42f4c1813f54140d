"""The `[data]` table: sources, what is held out, how concepts are split, how shards are streamed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mmalign.data import DataSource, SplitConfig

Positive = Annotated[int, msgspec.Meta(ge=1)]


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How shards of sources with `stream = true` become batches.

    Attributes:
        lanes: How many shards give pairs to one batch, each the same number of them. Of several processes each reads
            its own: a multiple of their number, and `train.batch_size` a multiple of it.
        turns: How many batches follow each other that have shards of their own. Of several workers each reads its own:
            a multiple of `train.num_workers`. With the same lanes and turns a run has the same batches, however many
            processes and workers it has.
        shuffle: Pairs that are held in memory and shuffled, of all lanes and turns together. Shards are shuffled in
            each epoch.
    """

    lanes: Positive = 4
    turns: Positive = 4
    shuffle: Positive = 4096

    @property
    def block_size(self) -> int:
        """Return how many pairs a lane shuffles at a time."""
        return max(1, self.shuffle // (self.lanes * self.turns))


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which pairs to learn from, which to keep for evaluation alone, and how concepts are split.

    Attributes:
        sources: What training reads, at least one `[[data.sources]]` table.
        held_out: Sources that nothing is trained on. The concepts of the test split are evaluated on them too.
        split: How concepts are split into train, val and test. Where a source is streamed, the others give val and test
            alone.
        stream: How shards of streamed sources are read.
        on_error: What a row that cannot be read does. "raise" stops the run; "skip" leaves the row out and counts it,
            and decodes every image once at the start to find those that are damaged. A pair with a caption longer than
            `text.max_characters` is left out too. Streamed pairs are left out as they are read.
    """

    sources: Annotated[tuple[DataSource, ...], msgspec.Meta(min_length=1)]
    held_out: tuple[DataSource, ...] = ()
    split: SplitConfig = SplitConfig()
    stream: StreamConfig = StreamConfig()
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        """Raise ValueError for a source that is trained on and held out, and for sources with none to validate on."""
        both = {source.path for source in self.sources} & {source.path for source in self.held_out}
        if both:
            raise ValueError(f"{sorted(both)[0]!r} is in sources and in held_out; remove it from one")
        if streamed := [source.path for source in self.held_out if source.stream]:
            raise ValueError(f"{streamed[0]!r} is held out and streamed, but evaluation reads whole sources")
        if held_out := [source.path for source in self.held_out if source.split == "train"]:
            raise ValueError(f'{held_out[0]!r} is held out, so that it is never trained on; remove split = "train"')
        trained = [source.path for source in self.sources if source.split == "train"]
        if trained and any(source.stream for source in self.sources):
            raise ValueError(
                f'{trained[0]!r} has split = "train", and another source is streamed: training then reads streamed '
                "sources alone, and the others are evaluated. Stream it too, or remove it"
            )
        if len(trained) == len(self.sources):
            raise ValueError(
                'every source has split = "train", so there is nothing to validate on; leave it out of those that the '
                "val and test splits are taken from"
            )
