"""One measurement of one embedder: what to measure and for how long, and everything that was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Literal, TypeAlias, TypeVar

import msgspec

from mmalign_runtime.bench.bulk import BulkTiming, time_bulk
from mmalign_runtime.bench.closed_loop import ClosedLoop, time_closed_loop
from mmalign_runtime.bench.cold_start import ColdStart, time_cold_start
from mmalign_runtime.bench.environment import Environment, environment_card
from mmalign_runtime.bench.laps import Laps
from mmalign_runtime.bench.memory import Memory, peak_bytes, resident_bytes
from mmalign_runtime.bench.quiet import Quietness, Watch
from mmalign_runtime.bench.stages import StageTiming, time_stages
from mmalign_runtime.bench.workload import Skipped, Workload, usable_items, workload
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.streaming import OnError

Part: TypeAlias = Literal["stages", "bulk", "closed-loop", "cold-start"]
Row = TypeVar("Row")

PARTS: tuple[Part, ...] = ("stages", "bulk", "closed-loop", "cold-start")
DEFAULT_BATCH_SIZES = (1, 8, 32)
# Laps of a large batch are long.
_TIME_SHARES: dict[Part, float] = {"stages": 0.5, "bulk": 0.3, "closed-loop": 0.2}


class BenchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure and for how long. Raises InputError when a number makes no sense.

    `seconds` are shared among the timed parts; cold starts, `num_starts` of each tower, come on top. With `num_rounds`
    every part takes that many laps of each batch size and number of callers instead. `num_callers` of the closed loop:
    None for one caller, and for as many as there are threads.
    """

    parts: tuple[Part, ...] = PARTS
    batch_sizes: tuple[int, ...] = DEFAULT_BATCH_SIZES
    seconds: float = 40.0
    num_rounds: int | None = None
    num_callers: tuple[int, ...] | None = None
    num_starts: int = 3

    def __post_init__(self) -> None:
        counts = (*self.batch_sizes, *(self.num_callers or ()), self.num_starts, self.num_rounds or 1)
        if not self.batch_sizes or not self.parts or min(counts) < 1 or self.num_callers == ():
            raise InputError(
                f"seen {self.num_rounds} rounds of batches of {list(self.batch_sizes)}, {self.num_callers} callers and "
                f"{self.num_starts} starts for {list(self.parts)}, expected at least 1 everywhere."
            )
        if self.seconds <= 0:
            raise InputError(f"seen {self.seconds} s, expected more than 0.")

    def part_seconds(self, part: Part) -> float:
        """Return the seconds of a timed part, those of the parts that are not measured shared among the others."""
        shares = sum(share for name, share in _TIME_SHARES.items() if name in self.parts)
        return self.seconds * _TIME_SHARES.get(part, 0.0) / (shares or 1.0)


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement: its environment, how many different items it went through, and what each part found.

    Parts that were not measured are empty.
    """

    environment: Environment
    num_images: int
    num_texts: int
    timings: tuple[StageTiming, ...]
    bulk: tuple[BulkTiming, ...] = ()
    closed_loop: tuple[ClosedLoop, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    quietness: Quietness | None = None
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0


def run_bench(
    embedder: Embedder,
    images: Sequence[ImageItem],
    texts: Sequence[str],
    *,
    plan: BenchPlan | None = None,
    on_error: OnError = "raise",
    tell: Callable[[str], object] = lambda what: None,
) -> BenchReport:
    """Measure the towers that an embedder has, with items of one's own or `golden_images` and `golden_texts`.

    `tell` is told what is measured next. Items that cannot be embedded are left out and reported with
    `on_error="skip"`. Raises InputError when a kind has no item, ItemError for the first bad item otherwise.
    """
    started, plan = perf_counter(), plan or BenchPlan()
    embedder.load_towers()
    loaded = resident_bytes()
    tell("every item once")
    items, skipped = usable_items(embedder, images, texts, on_error)
    works = [workload(embedder, kind, of_kind) for kind, of_kind in items.items()]
    watch = Watch(embedder.info().num_threads)

    def measured(part: Part, what: str, measure: Callable[[Workload, Laps], list[Row]]) -> tuple[Row, ...]:
        rows: list[Row] = []
        for work in works if part in plan.parts else ():
            tell(what.format(work.kind))
            watch.glance()
            seconds = plan.part_seconds(part) / len(works)
            rows += measure(work, Laps(seconds=seconds, num_rounds=plan.num_rounds, between=watch.glance))
        return tuple(rows)

    callers = plan.num_callers or tuple(dict.fromkeys((1, embedder.info().num_threads)))
    return BenchReport(  # fields in this order, which is that of the measurements
        environment=environment_card(embedder),
        num_images=len(items.get("image", ())),
        num_texts=len(items.get("text", ())),
        timings=measured("stages", "stages of {}s", lambda w, laps: time_stages(embedder, w, plan.batch_sizes, laps)),
        bulk=measured("bulk", "{}s in bulk", lambda w, laps: time_bulk(w, plan.batch_sizes, laps)),
        closed_loop=measured("closed-loop", "callers of {}s", lambda w, laps: time_closed_loop(w, callers, laps)),
        memory=Memory(loaded_bytes=loaded, peak_bytes=peak_bytes()),
        cold_starts=measured(
            "cold-start", "cold starts of {}s", lambda w, _: [time_cold_start(embedder, w.kind, plan.num_starts)]
        ),
        quietness=watch.verdict(),
        skipped=skipped,
        seconds=perf_counter() - started,
    )
