"""The stream of images, with stages that are told what to do: an item is a number, its vector that number."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mmalign_runtime.errors import EngineError, ItemError
from mmalign_runtime.image import DetachedImage
from mmalign_runtime.image_stream import PixelValues, stream_images
from mmalign_runtime.streaming import StreamedItem, Vectors

TIMEOUT_S = 10


class FakeStages:
    """Stages that write each item's number into its room; `broken` numbers fail while prepared."""

    def __init__(self, num_workers: int = 2, broken: tuple[int, ...] = ()) -> None:
        self.num_workers = num_workers
        self.most_at_once: int | None = None
        self.broken = broken
        self.threads: set[int] = set()
        self.batches: list[list[int]] = []
        self.on_prepare: Callable[[int], object] = lambda number: None
        self.on_tower: Callable[[], object] = lambda: None

    def detach(self, item: object, index: int) -> DetachedImage:
        if item == "unreadable":
            raise ItemError(index, "file", "open", "cannot be read")
        return DetachedImage(item, str(item))  # type: ignore[arg-type]

    def empty(self, num_images: int) -> PixelValues:
        return np.full((num_images, 1, 1, 1), np.nan, np.float32)

    def prepare(self, detached: DetachedImage, index: int, room: PixelValues) -> None:
        self.threads.add(threading.get_ident())
        self.on_prepare(index)
        if index in self.broken:
            raise ItemError(index, detached.source, "decode", "it is broken")
        room[...] = detached.item

    def tower(self, pixel_values: PixelValues) -> Vectors:
        self.on_tower()
        self.batches.append(pixel_values.reshape(-1).astype(int).tolist())
        return pixel_values.reshape(-1, 1).copy()


def run(stages: FakeStages, items: object, batch_size: int, on_error: str = "raise") -> list[StreamedItem]:
    return list(stream_images(items, stages, batch_size, on_error))  # type: ignore[arg-type]


def prepare_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("mmalign-prepare")]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    assert not prepare_threads()


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
@pytest.mark.parametrize(("num_items", "batch_size"), [(0, 4), (1, 4), (2, 4), (4, 4), (5, 4), (23, 4), (5, 1)])
def test_items_come_in_order_in_the_same_batches(num_workers: int, num_items: int, batch_size: int) -> None:
    stages = FakeStages(num_workers)
    stages.on_prepare = lambda number: time.sleep(0.002 * (number % 3))
    results = run(stages, range(num_items), batch_size)
    assert [result.index for result in results] == list(range(num_items))
    assert [float(result.vector[0]) for result in results if result.vector is not None] == list(range(num_items))
    starts = range(0, num_items, batch_size)
    assert stages.batches == [list(range(start, min(start + batch_size, num_items))) for start in starts]
    last = {min(start + batch_size, num_items) - 1 for start in starts}
    assert {result.index for result in results if result.ends_window} == last


def test_batches_are_no_larger_than_suits_the_tower() -> None:
    for batch_size, expected in ((2, [[0, 1], [2, 3], [4]]), (4, [[0, 1, 2], [3, 4]]), (32, [[0, 1, 2], [3, 4]])):
        stages = FakeStages()
        stages.most_at_once = 3
        run(stages, range(5), batch_size)
        assert stages.batches == expected


def test_a_batch_is_prepared_while_the_tower_runs_on_the_one_before() -> None:
    stages = FakeStages()
    second_begun = threading.Event()
    stages.on_prepare = lambda number: second_begun.set() if number == 4 else None

    def wait_for_the_second() -> None:
        assert second_begun.wait(TIMEOUT_S)

    stages.on_tower = wait_for_the_second
    assert len(run(stages, range(8), 4)) == 8


def test_one_image_is_prepared_in_the_callers_thread() -> None:
    for items, batch_size in (([0], 32), ([0, 1, 2], 1)):
        stages = FakeStages()
        run(stages, items, batch_size)
        assert stages.threads == {threading.get_ident()}
    alone = FakeStages(num_workers=0)
    run(alone, range(9), 4)
    assert alone.threads == {threading.get_ident()}


def test_more_images_are_prepared_by_threads() -> None:
    stages = FakeStages()
    run(stages, range(9), 4)
    assert threading.get_ident() not in stages.threads
    assert len(stages.threads) <= 2


@pytest.mark.parametrize(("batch_size", "most"), [(1, 1), (4, 8)])
def test_the_source_is_read_two_batches_ahead_at_most_and_by_its_own_thread(batch_size: int, most: int) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(threading.get_ident())
            yield len(taken) - 1

    stream = stream_images(endless(), FakeStages(), batch_size, "raise")  # type: ignore[arg-type, type-var]
    assert not taken
    for number in range(9):
        assert next(stream).index == number
        given_out = (number // batch_size + 1) * batch_size
        assert len(taken) <= given_out - batch_size + most
    stream.close()  # type: ignore[attr-defined]
    assert set(taken) == {threading.get_ident()}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_first_failure_in_order_is_raised_after_the_batches_before_it(num_workers: int) -> None:
    stages = FakeStages(num_workers, broken=(5, 6, 9))
    stages.on_prepare = lambda number: time.sleep(0.02) if number == 5 else None
    seen: list[int] = []
    with pytest.raises(ItemError, match=r"item 5 \(5\), decode: it is broken"):
        seen.extend(result.index for result in stream_images(range(20), stages, 4, "raise"))  # type: ignore[arg-type]
    assert seen == [0, 1, 2, 3]
    items = [0, 1, "unreadable", 3]
    with pytest.raises(ItemError, match=r"item 1 \(1\), decode"):
        run(FakeStages(num_workers, broken=(1,)), items, 4)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_item_costs_itself_alone(num_workers: int) -> None:
    stages = FakeStages(num_workers, broken=(1, 4, 5, 6, 7))
    items: list[object] = list(range(11))
    items[9] = "unreadable"
    results = run(stages, items, 4, "skip")
    assert [result.index for result in results] == list(range(11))
    failed = {result.index: result.error for result in results if result.error is not None}
    assert sorted(failed) == [1, 4, 5, 6, 7, 9]
    assert all(error.index == index for index, error in failed.items())
    good = {result.index: float(result.vector[0]) for result in results if result.vector is not None}
    assert good == {index: index for index in (0, 2, 3, 8, 10)}
    assert stages.batches == [[0, 2, 3], [8, 10]]


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def breaks() -> Iterator[int]:
        yield from range(6)
        raise ConnectionError("the source went away")

    seen: list[int] = []
    with pytest.raises(ConnectionError, match="went away"):
        seen.extend(result.index for result in stream_images(breaks(), FakeStages(), 2, "skip"))  # type: ignore[arg-type, type-var]
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [EngineError("no memory"), MemoryError("no memory"), KeyboardInterrupt()])
def test_whatever_the_tower_raises_ends_the_stream(error: BaseException) -> None:
    stages = FakeStages()

    def fail() -> None:
        if len(stages.batches) == 1:
            raise error

    stages.on_tower = fail
    with pytest.raises(type(error)):
        run(stages, range(20), 4, "skip")
    assert not prepare_threads()


def test_other_errors_of_a_thread_are_raised_in_their_turn() -> None:
    stages = FakeStages()

    def fail(number: int) -> None:
        if number == 6:
            raise EngineError("the graph failed")

    stages.on_prepare = fail
    seen: list[int] = []
    with pytest.raises(EngineError, match="the graph failed"):
        seen.extend(result.index for result in stream_images(range(20), stages, 4, "skip"))  # type: ignore[arg-type]
    assert seen == [0, 1, 2, 3]


def test_a_stream_that_is_dropped_leaves_nothing_running_and_nothing_more_prepared() -> None:
    stages = FakeStages()
    prepared: list[int] = []

    def slowly(number: int) -> None:
        prepared.append(number)
        time.sleep(0.05 if number >= 8 else 0)

    stages.on_prepare = slowly
    stream = stream_images(range(1000), stages, 8, "raise")  # type: ignore[arg-type]
    assert next(stream).index == 0
    del stream
    assert not prepare_threads()
    assert len(prepared) < 8 + 8


def test_streams_that_take_turns_do_not_disturb_each_other() -> None:
    first, second = (stream_images(range(20), FakeStages(), 3, "raise") for _ in range(2))  # type: ignore[arg-type]
    for number, (left, right) in enumerate(zip(first, second, strict=True)):
        assert left.vector == right.vector == number


@pytest.mark.parametrize("settings", [(0, "raise"), (True, "raise"), (4, "ignore")])
def test_settings_without_sense_are_refused_at_once(settings: tuple[int, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        stream_images([], FakeStages(), *settings)  # type: ignore[arg-type]
