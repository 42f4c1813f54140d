"""What could run a bundle here, measured interleaved, and which of it to take: `mmalign bench --save-profile`.

First every engine with every precision that gives the bundle's vectors here, on all threads. Then those not far behind
the fastest, with fewer threads and other ways to wait. The fastest of these is recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import msgspec

from mmalign_runtime.bench.comparison import Candidate, Comparison, Lap, Refused, summed_up
from mmalign_runtime.bench.environment import environment_card
from mmalign_runtime.bench.quiet import Watch
from mmalign_runtime.bench.run import DEFAULT_BATCH_SIZES
from mmalign_runtime.bench.workload import Workload, usable_items, workload
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.config import BFLOAT16, DEFAULT_ENGINE, ComputePrecision, RuntimeConfig, RuntimeFields, configured
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.engines import find_engine, installed_engines, resolve_options
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import BundleError, MmalignError, ProviderError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.profile import Goal, Profile, this_machine
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError
from mmalign_runtime.verify import require_golden

# In the place of an engine's name: all that are installed.
ALL_ENGINES = "all"

# Below it, two candidates are equals, and preference decides.
_EQUAL = 1.03
# More than threads and ways to wait gain: who is farther behind the fastest does not catch up.
_NEAR = 1.5
_NUM_FIRST_LAPS, _NUM_LAPS = 2, 3
_FIRST_BATCH_SIZE = 8
# One lap of one kind; below it timers and single pauses weigh too much.
_LAP_S = 0.4
_MIN_ITEMS = 8

# Each raises MmalignError: `RunLap` when a config cannot be loaded or run, `Verify` when its vectors are others.
RunLap = Callable[[RuntimeConfig, Sequence[int]], Sequence[Lap]]
Verify = Callable[[RuntimeConfig], object]
Tell = Callable[[str], object]


def first_candidates(bundle: Bundle, fixed: RuntimeFields, towers: Sequence[Modality]) -> list[RuntimeConfig]:
    """Return each engine with each precision it has of these towers, on all threads; the default engine comes first.

    What is `fixed` is the same in all. Raises ProviderError when nothing can run the bundle so, and for an engine that
    is not known, MissingDependencyError for one that is not installed.
    """
    asked, precision = fixed.get("engine") or DEFAULT_ENGINE, fixed.get("precision")
    engines = installed_engines() if asked == ALL_ENGINES else (asked,)
    precisions: tuple[ComputePrecision, ...] = (
        (*bundle.spec.precisions(), BFLOAT16) if precision is None else (precision,)
    )
    base = configured(RuntimeConfig(num_threads=available_threads()), fixed)
    tried = [msgspec.structs.replace(base, engine=each, precision=p) for each in engines for p in precisions]
    found = [config for config in tried if _can_run(bundle, config, towers)]
    if not found:
        how = f"precision {precision}, " if precision else ""
        raise ProviderError(
            f"no engine of {', '.join(engines)} can run {bundle.path} with {how}provider {base.provider}. The bundle "
            f"offers {', '.join(bundle.spec.precisions())}; ask for one of these."
        )
    return found


def settings(config: RuntimeConfig, fixed: RuntimeFields) -> Iterator[RuntimeConfig]:
    """Yield the ways to run a candidate: fewer threads, and waiting busily, where neither is fixed."""
    available = config.num_threads or 1
    powers = [1 << exponent for exponent in range(available.bit_length()) if 1 << exponent < available]
    for num_threads in (available,) if fixed.get("num_threads") else (*powers, available):
        # One thread waits for no other, and only onnxruntime can be told how to wait.
        can_spin = config.engine == DEFAULT_ENGINE and num_threads > 1 and fixed.get("allow_spinning") is None
        for allow_spinning in (False, True) if can_spin else (config.allow_spinning,):
            yield msgspec.structs.replace(config, num_threads=num_threads, allow_spinning=allow_spinning)


def preference(config: RuntimeConfig, bundle: Bundle) -> tuple[bool, int, bool, int]:
    """Return what decides between equals: threads that sleep, exact numbers, the default engine, and few threads.

    Sorts the preferred one first.
    """
    offered = bundle.spec.precisions()
    # Most exact first: bfloat16 keeps 8 bits, float16 11.
    exact = (*(each for each in offered if each != "int8"), BFLOAT16, "int8")
    return (
        config.allow_spinning,
        exact.index(config.precision),
        config.engine != DEFAULT_ENGINE,
        config.num_threads or 0,
    )


def _can_run(bundle: Bundle, config: RuntimeConfig, towers: Sequence[Modality]) -> bool:
    engine = find_engine(config.engine)
    engine.version()  # one that was asked for by name is installed
    try:
        engine.resolve_provider(config.provider)
        for tower in towers:
            engine.artifact(bundle.spec, tower, config.precision)
    except (BundleError, ProviderError):
        return False
    return True


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared for which goal. `fixed` are fields of the config that are the same in all candidates."""

    goal: Goal
    fixed: RuntimeFields
    towers: tuple[Modality, ...] = ("image", "text")
    batch_sizes: tuple[int, ...] = DEFAULT_BATCH_SIZES
    even_if_noisy: bool = False


def compare(
    bundle: Bundle,
    question: Question,
    images: Sequence[ImageItem],
    texts: Sequence[str],
    *,
    on_error: OnError = "raise",
    tell: Tell = lambda what: None,
) -> Comparison:
    """Compare what can run a bundle here, and recommend one config that passed `verify`.

    Nothing is recommended when nothing passed, or the machine was noisy and the question does not say "even if". Raises
    InputError when a kind has no usable item, ProviderError or MissingDependencyError when no engine can run the bundle
    as asked, and as `Embedder.load` does when the default candidate cannot be loaded.
    """
    started = perf_counter()
    firsts = first_candidates(bundle, question.fixed, question.towers)
    tell("every item once")
    with Embedder(bundle, firsts[0], towers=question.towers) as embedder:
        items, skipped = usable_items(embedder, images, texts, on_error)
        num_items = {kind: _lap_items(workload(embedder, kind, items[kind]), question) for kind in items}
        environment = environment_card(embedder)
    watch = Watch(firsts[0].num_threads or 1)

    def run_lap(config: RuntimeConfig, batch_sizes: Sequence[int]) -> list[Lap]:
        watch.glance()  # with nothing loaded: threads that wait busily for their engine would pass for a neighbour
        with Embedder(bundle, config, towers=question.towers) as embedder:
            works = [workload(embedder, kind, of_kind) for kind, of_kind in items.items()]
            return [_lap(work, num_items[work.kind], size, question.goal) for work in works for size in batch_sizes]

    turns = Turns(question.goal, run_lap, partial(_verify, bundle, question.towers), tell)
    candidates = turns.run(firsts, question.fixed, (1,) if question.goal == "latency" else question.batch_sizes)
    quietness = watch.verdict()
    best = None
    if quietness.is_quiet or question.even_if_noisy:
        best = recommended(candidates, question.goal, bundle)
    return Comparison(
        environment=environment,
        goal=question.goal,
        candidates=tuple(candidates),
        refused=tuple(Refused(config, reason) for config, reason in turns.refused.items()),
        recommended=None if best is None else best.config,
        default=firsts[0],
        profile=None if best is None else _profile(bundle, question.goal, best),
        quietness=quietness,
        skipped=skipped,
        seconds=perf_counter() - started,
    )


class Turns:
    """The laps of one comparison; `refused` are the configs that failed `verify` or a lap, and why."""

    def __init__(self, goal: Goal, run_lap: RunLap, verify: Verify, tell: Tell) -> None:
        self.refused: dict[RuntimeConfig, str] = {}
        self._goal, self._run_lap, self._verify, self._tell = goal, run_lap, verify, tell

    def run(self, firsts: Sequence[RuntimeConfig], fixed: RuntimeFields, batch_sizes: Sequence[int]) -> list[Candidate]:
        """Return everyone who was measured, fastest first."""
        for config in firsts:
            self._tell(f"verifying {config}")
            self._try(config, self._verify)
        first_sizes = (1,) if self._goal == "latency" else (_FIRST_BATCH_SIZE,)
        seen = self._measured(firsts, first_sizes, _NUM_FIRST_LAPS, is_final=False)
        least = max((each.score(self._goal) for each in seen), default=0.0) / _NEAR
        near = [each.config for each in seen if each.score(self._goal) >= least]
        finals = dict.fromkeys([*firsts[:1], *(other for each in near for other in settings(each, fixed))])
        found = self._measured(list(finals), batch_sizes, _NUM_LAPS, is_final=True)
        found += [each for each in seen if each.config not in finals]
        return sorted(found, key=lambda each: -each.score(self._goal))

    def _measured(
        self, configs: Sequence[RuntimeConfig], batch_sizes: Sequence[int], num_laps: int, *, is_final: bool
    ) -> list[Candidate]:
        laps: dict[RuntimeConfig, list[Lap]] = {config: [] for config in configs}
        for number in range(num_laps):
            turn = number % len(configs)  # so that none always runs behind the same one
            for config in (*configs[turn:], *configs[:turn]):
                if config not in self.refused:
                    self._tell(f"measuring {config}")
                    self._try(config, lambda config: laps[config].extend(self._run_lap(config, batch_sizes)))
        return [summed_up(each, laps[each], is_final=is_final) for each in configs if each not in self.refused]

    def _try(self, config: RuntimeConfig, what: Callable[[RuntimeConfig], object]) -> None:
        try:
            what(config)
        except MmalignError as error:
            self.refused[config] = str(error)


def recommended(candidates: Sequence[Candidate], goal: Goal, bundle: Bundle) -> Candidate | None:
    """Return the fastest, or of those as fast to within 3% the one that asks for least; None where none is final."""
    finals = [each for each in candidates if each.is_final]
    least = max((each.score(goal) for each in finals), default=0.0) / _EQUAL
    equals = [each for each in finals if each.score(goal) >= least]
    return min(equals, key=lambda each: preference(each.config, bundle), default=None)


def _verify(bundle: Bundle, towers: Sequence[Modality], config: RuntimeConfig) -> None:
    with Embedder(bundle, config, towers=towers) as embedder:
        require_golden(embedder)


def _lap_items(work: Workload, question: Question) -> int:
    """Return how many items a lap takes: what fits its time, as the default candidate is now, and the largest batch."""
    work.ask(0, num_items=min(_MIN_ITEMS, len(work.items)))
    affordable = max(_MIN_ITEMS, int(_LAP_S * _MIN_ITEMS / _seconds(work, 0, _MIN_ITEMS)))
    if question.goal == "latency":
        return min(affordable, max(_MIN_ITEMS, len(work.items)))
    return max(max(question.batch_sizes), min(affordable, 2 * max(question.batch_sizes)))


def _lap(work: Workload, num_items: int, batch_size: int, goal: Goal) -> Lap:
    """Time each item alone for latency, all of them at once for throughput."""
    work.ask(0, num_items=min(2 * batch_size, num_items), batch_size=batch_size)  # plans memory, fills caches
    if goal == "latency":
        return Lap(work.kind, 1, tuple(_seconds(work, number) for number in range(num_items)), 1)
    return Lap(work.kind, batch_size, (_seconds(work, 0, num_items, batch_size),), num_items)


def _seconds(work: Workload, number: int, num_items: int = 1, batch_size: int = 1) -> float:
    started = perf_counter()
    work.ask(number, num_items=num_items, batch_size=batch_size)
    return perf_counter() - started


def _profile(bundle: Bundle, goal: Goal, best: Candidate) -> Profile:
    sizes = {f"{row.kind}_batch_size": row.batch_size for row in best.best(goal)}
    options = resolve_options(best.config)
    return Profile(
        **(options.fields() | sizes),
        goal=goal,
        space_id=bundle.spec.space_id,
        variant_id=find_engine(options.engine).variant_id(bundle.spec, options.precision),
        machine=this_machine(),
        measured=best.best(goal),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
