"""One measurement from the first item to the report, each part in its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter

import msgspec

from mmalign_runtime.bench.bulk import BulkTiming, time_bulk
from mmalign_runtime.bench.closed_loop import ClosedLoop, time_closed_loop
from mmalign_runtime.bench.cold_start import ColdStart, time_cold_start
from mmalign_runtime.bench.environment import environment_card
from mmalign_runtime.bench.memory import Memory, peak_bytes, resident_bytes
from mmalign_runtime.bench.open_loop import OpenLoop, run_open_loop
from mmalign_runtime.bench.plan import RATE_SHARES, BenchPlan
from mmalign_runtime.bench.quiet import Watch
from mmalign_runtime.bench.report import BenchReport
from mmalign_runtime.bench.stages import StageTiming, time_image_stages, time_text_stages
from mmalign_runtime.bench.turns import Length
from mmalign_runtime.bench.workload import Skipped, Workload, image_work, text_work, usable_images, usable_texts
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError

# Told what is measured next.
Tell = Callable[[str], object]
Glance = Callable[[], object]


class Side(msgspec.Struct, frozen=True):
    """One tower with its items: through the public path, and stage by stage."""

    work: Workload
    time_stages: Callable[[Sequence[int], Length, Glance], list[StageTiming]]
    skipped: tuple[Skipped, ...]


def run_bench(
    embedder: Embedder,
    images: Sequence[ImageItem],
    texts: Sequence[str],
    *,
    plan: BenchPlan | None = None,
    on_error: OnError = "raise",
    tell: Tell = lambda what: None,
) -> BenchReport:
    """Measure the towers that an embedder has, with items of one's own or `golden_images` and `golden_texts`.

    Items that cannot be embedded are left out and reported with `on_error="skip"`. Raises InputError when a kind has no
    item or the plan makes no sense, ItemError for the first bad item otherwise.
    """
    started = perf_counter()
    plan = plan or BenchPlan()
    plan.check()
    embedder.load_towers()
    loaded = resident_bytes()
    sides = list(_sides(embedder, images, texts, on_error, tell))
    watch = Watch(embedder.info().num_threads)
    timings = _stages(sides, plan, watch.glance, tell)
    bulk = _bulk(sides, plan, watch.glance, tell)
    closed_loop = _closed_loop(embedder, sides, plan, watch.glance, tell)
    open_loop = _open_loop(sides, closed_loop, plan, watch.glance, tell)
    memory = Memory(loaded_bytes=loaded, peak_bytes=peak_bytes())
    cold_starts = _cold_starts(embedder, plan, watch.glance, tell)
    num_items = {side.work.kind: side.work.num_items for side in sides}
    return BenchReport(
        environment=environment_card(embedder),
        num_images=num_items.get("image", 0),
        num_texts=num_items.get("text", 0),
        timings=tuple(timings),
        bulk=tuple(bulk),
        closed_loop=tuple(closed_loop),
        open_loop=tuple(open_loop),
        cold_starts=tuple(cold_starts),
        memory=memory,
        quietness=watch.verdict(),
        skipped=tuple(item for side in sides for item in side.skipped),
        seconds=perf_counter() - started,
    )


def _sides(
    embedder: Embedder, images: Sequence[ImageItem], texts: Sequence[str], on_error: OnError, tell: Tell
) -> Iterator[Side]:
    tell("every item once")
    if "image" in embedder.towers:
        _require(images, "image")
        good_images, skipped = usable_images(embedder, images, on_error)
        work = image_work(embedder, good_images)
        yield Side(work, partial(time_image_stages, embedder.image, good_images), tuple(skipped))
    if "text" in embedder.towers:
        _require(texts, "text")
        good_texts, skipped = usable_texts(embedder, texts, on_error)
        work = text_work(embedder, good_texts)
        yield Side(work, partial(time_text_stages, embedder.text, good_texts), tuple(skipped))


def _require(items: Sequence[object], kind: Modality) -> None:
    if not items:
        raise InputError(f"seen 0 {kind}s, expected at least one to measure.")


def _stages(sides: Sequence[Side], plan: BenchPlan, glance: Glance, tell: Tell) -> list[StageTiming]:
    if "stages" not in plan.parts:
        return []
    length = Length(seconds=plan.part_seconds("stages") / len(sides), num_rounds=plan.num_rounds)
    found = []
    for side in sides:
        tell(f"stages of {side.work.kind}s")
        found += side.time_stages(plan.batch_sizes, length, glance)
    return found


def _bulk(sides: Sequence[Side], plan: BenchPlan, glance: Glance, tell: Tell) -> list[BulkTiming]:
    if "bulk" not in plan.parts:
        return []
    length = Length(seconds=plan.part_seconds("bulk") / len(sides), num_rounds=plan.num_rounds)
    found = []
    for side in sides:
        tell(f"{side.work.kind}s in bulk")
        found += time_bulk(side.work, plan.batch_sizes, length, glance)
    return found


def _closed_loop(
    embedder: Embedder, sides: Sequence[Side], plan: BenchPlan, glance: Glance, tell: Tell
) -> list[ClosedLoop]:
    if not plan.has_closed_loop:
        return []
    num_callers = plan.num_callers or tuple(dict.fromkeys((1, embedder.info().num_threads)))
    length = Length(seconds=plan.part_seconds("closed-loop") / len(sides))
    found = []
    for side in sides:
        tell(f"callers that wait for {side.work.kind}s")
        found += time_closed_loop(side.work, num_callers, length, glance)
    return found


def _open_loop(
    sides: Sequence[Side], closed_loop: Sequence[ClosedLoop], plan: BenchPlan, glance: Glance, tell: Tell
) -> list[OpenLoop]:
    if "open-loop" not in plan.parts:
        return []
    found = []
    for side in sides:
        best = max((row for row in closed_loop if row.kind == side.work.kind), key=lambda row: row.items_per_s)
        rates = plan.rates_per_s or tuple(share * best.items_per_s for share in RATE_SHARES)
        for rate_per_s in rates:
            tell(f"{side.work.kind}s arriving at {rate_per_s:.3g}/s")
            glance()
            seconds = plan.part_seconds("open-loop") / len(sides) / len(rates)
            found.append(
                run_open_loop(
                    side.work.kind,
                    side.work.ask,
                    rate_per_s=rate_per_s,
                    capacity_per_s=best.items_per_s,
                    seconds=_whole_passes(seconds, rate_per_s, side.work.num_items),
                    arrivals=plan.arrivals,
                    seed=plan.seed,
                    num_servers=best.num_callers,
                )
            )
    return found


def _whole_passes(seconds: float, rate_per_s: float, num_items: int) -> float:
    """Return about as many seconds, in which every item arrives equally often if each can arrive at all.

    A single picture of 20 megapixels among small ones would otherwise decide which rate looks slow.
    """
    num_requests = rate_per_s * seconds
    return (
        max(1, round(num_requests / num_items)) * num_items / rate_per_s if num_requests >= num_items / 2 else seconds
    )


def _cold_starts(embedder: Embedder, plan: BenchPlan, glance: Glance, tell: Tell) -> list[ColdStart]:
    found = []
    for kind in embedder.towers if "cold-start" in plan.parts else ():
        tell(f"cold starts to a first {kind} vector")
        glance()
        found.append(time_cold_start(embedder, kind, plan.num_starts))
    return found
