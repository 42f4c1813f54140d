from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from mmalign.data import DataConfigError, DataSource, EmptySourceError, Pair, RowError, SourceFormatError
from mmalign.data.shards import Lane, Shard, find_shards, num_pairs_between
from tests.mmalign.shards import write_shard, write_shards


def streamed(pattern: str) -> tuple[Shard, ...]:
    return find_shards([DataSource(pattern, stream=True, num_pairs=1)])


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Shard, ...]:
    """Six shards of five pairs."""
    return streamed(write_shards(tmp_path, 6, 5))


def numbers_of(pairs: Sequence[Pair]) -> list[int]:
    return [int(str(pair.origin.member)) for pair in pairs]


def test_every_pair_is_taken_once_before_any_is_taken_again(shards: tuple[Shard, ...]) -> None:
    lane = Lane(shards, seed=0, number=0, num_lanes=1, block_size=6)
    first, second = numbers_of(lane.take(30)), numbers_of(lane.take(30))
    assert sorted(first) == sorted(second) == list(range(30))
    assert [number // 5 for number in first] != [number // 5 for number in second]


def test_a_block_is_shuffled_and_holds_no_more_than_its_size(shards: tuple[Shard, ...]) -> None:
    whole = numbers_of(Lane(shards, 0, 0, 1, block_size=10).take(30))
    as_read = numbers_of(Lane(shards, 0, 0, 1, block_size=1).take(30))
    for start in range(0, 30, 10):
        assert sorted(whole[start : start + 10]) == sorted(as_read[start : start + 10])
        assert whole[start : start + 10] != as_read[start : start + 10]


def test_lanes_share_the_shards_of_an_epoch(shards: tuple[Shard, ...]) -> None:
    taken = [numbers_of(Lane(shards, 3, number, 2, block_size=5).take(15)) for number in range(2)]
    assert sorted(taken[0] + taken[1]) == list(range(30))
    assert len({number // 5 for number in taken[0]}) == 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_taken", [0, 1, 6, 7, 8, 29, 44])
def test_a_lane_goes_on_from_its_position(shards: tuple[Shard, ...], num_taken: int, seed: int) -> None:
    lane = Lane(shards, seed, 1, 2, block_size=7)
    lane.take(num_taken)
    again = Lane(shards, seed, 1, 2, block_size=7, start=lane.position)
    expected = lane.take(40)
    assert numbers_of(again.take(40)) == numbers_of(expected)
    assert again.position == lane.position


def test_a_shard_is_not_opened_before_its_turn(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path, 6, 5)
    last = numbers_of(Lane(streamed(pattern), 0, 0, 1, block_size=5).take(30))[-1] // 5
    (tmp_path / f"{last:03d}.tar").write_bytes(b"no tar" * 999)
    lane = Lane(streamed(pattern), 0, 0, 1, block_size=5)
    assert len(lane.take(25)) == 25
    for _ in range(2):  # a worker prepares some steps more before it hears of the first error
        with pytest.raises(SourceFormatError, match=rf"{last:03d}\.tar cannot be read"):
            lane.take(1)


def test_bad_rows_are_errors_or_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pattern = write_shards(tmp_path, 2, 4)
    write_shard(tmp_path / "001.tar", range(4, 8), ending=".caption")
    write_shard(tmp_path / "002.tar", range(8, 12))
    with pytest.raises(RowError, match=r"001\.tar, member 0004: members .*\. Repair it, or set on_error"):
        Lane(streamed(pattern), 0, 0, 1, block_size=4).take(12)
    lane = Lane(streamed(pattern), 0, 0, 1, block_size=4, skips=True)
    with caplog.at_level(logging.WARNING):
        assert sorted(numbers_of(lane.take(8))) == [*range(4), *range(8, 12)]
        lane.take(8)
    assert "001.tar: skipped 4 of 4 rows; the first is" in caplog.text


@pytest.mark.parametrize("num_taken", [0, 3, 11, 40, 200])
def test_where_lanes_stand_tells_how_many_pairs_there_are(shards: tuple[Shard, ...], num_taken: int) -> None:
    lanes = [Lane(shards, 0, number, 4, block_size=3) for number in range(4)]
    for lane in lanes:
        lane.take(num_taken)
    positions = torch.tensor([msgspec.structs.astuple(lane.position) for lane in lanes])
    least, most = num_pairs_between(positions, len(shards), block_size=3)
    assert least <= 30 <= most
    assert most - least < 2 if num_taken == 200 else most > least


def test_a_lane_without_pairs_is_an_error(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path, 2, 0)
    with pytest.raises(EmptySourceError, match=r"0\d\d\.tar and the other shards of its lane hold no pair"):
        Lane(streamed(pattern), 0, 0, 1, block_size=4).take(1)


def test_files_of_another_kind_are_refused(pairs_csv: Path) -> None:
    with pytest.raises(DataConfigError, match=r"pairs\.csv is read as csv, and stream = true is for WebDataset shards"):
        streamed(str(pairs_csv))
