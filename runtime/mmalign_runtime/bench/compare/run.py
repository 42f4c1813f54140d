"""From the first candidate to the recommendation and its profile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import msgspec

from mmalign_runtime.bench.compare.candidates import Candidate, basic_candidates, preference, supports
from mmalign_runtime.bench.compare.heats import Heats, Tell
from mmalign_runtime.bench.compare.laps import Lap, Track, lap_items, works
from mmalign_runtime.bench.compare.report import Comparison, Contestant
from mmalign_runtime.bench.environment import environment_card
from mmalign_runtime.bench.plan import DEFAULT_BATCH_SIZES
from mmalign_runtime.bench.quiet import Watch
from mmalign_runtime.bench.workload import usable_images, usable_texts
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.choices import DEFAULT_BATCH_SIZE
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import BFLOAT16, DEFAULT_ENGINE, ComputePrecision
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.errors import ProviderError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.machine import this_machine
from mmalign_runtime.profile import Goal, Profile
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError
from mmalign_runtime.verify import require_golden

# Below it, two candidates are equals, and preference decides.
_EQUAL = 1.03


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared for which goal. None leaves the precision or the number of threads open."""

    goal: Goal
    engines: tuple[str, ...]
    provider: Provider = "auto"
    precision: ComputePrecision | None = None
    num_threads: int | None = None
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
    """Compare what can run a bundle here, and recommend one candidate that passed `verify`.

    Nothing is recommended, and there is no profile, when nothing passed, or the machine was noisy and the question does
    not say "even if". Raises InputError when a kind has no usable item, ProviderError or MissingDependencyError when no
    engine can run the bundle as asked, and as `Embedder.load` does when the default candidate cannot be loaded.
    """
    started = perf_counter()
    basics = _basics(bundle, question)
    default = basics[0]
    track = Track(
        bundle=bundle,
        provider=question.provider,
        goal=question.goal,
        towers=question.towers,
        images=images,
        texts=texts,
        num_items={},
    )
    tell("every item once")
    with track.load(default) as embedder:
        good_images, bad_images = usable_images(embedder, images, on_error) if "image" in embedder.towers else ([], [])
        good_texts, bad_texts = usable_texts(embedder, texts, on_error) if "text" in embedder.towers else ([], [])
        num_items = {
            kind: lap_items(work, question.batch_sizes, question.goal)
            for kind, work in works(embedder, good_images, good_texts).items()
        }
        environment = environment_card(embedder)
    track = msgspec.structs.replace(track, images=good_images, texts=good_texts, num_items=num_items)
    watch = Watch(default.num_threads)
    heats = Heats(
        question.goal,
        partial(_try_once, track, watch),
        partial(_verify, track),
        tell,
    )
    contestants = heats.run(basics, default, question.batch_sizes, question.num_threads)
    quietness = watch.verdict()
    best = None
    if quietness.is_quiet or question.even_if_noisy:
        best = recommended(contestants, question.goal, _precisions(bundle))
    return Comparison(
        environment=environment,
        goal=question.goal,
        contestants=tuple(contestants),
        refused=tuple(heats.refused),
        recommended=None if best is None else best.candidate,
        default=default,
        profile=None if best is None else _profile(bundle, question, best),
        quietness=quietness,
        skipped=(*bad_images, *bad_texts),
        seconds=perf_counter() - started,
    )


def recommended(
    contestants: Sequence[Contestant], goal: Goal, precisions: Sequence[ComputePrecision]
) -> Contestant | None:
    """Return the fastest that passed `verify`, or of those as fast to within 3% the one that asks for least.

    Only those tried as often as any: who left after a heat was tried at another moment.
    """
    most = max((found.num_tries for found in contestants if found.is_verified), default=0)
    finals = [found for found in contestants if found.is_verified and found.num_tries == most]
    if not finals:
        return None
    least = max(found.score(goal) for found in finals) / _EQUAL
    equals = [found for found in finals if found.score(goal) >= least]
    return min(equals, key=lambda found: preference(found.candidate, precisions))


def _basics(bundle: Bundle, question: Question) -> list[Candidate]:
    """Return what is tried first, the default first of all."""
    for name in question.engines:
        find_engine(name).version()  # one that was asked for by name is known, and installed
    engines = [name for name in question.engines if supports(question.provider, name)]
    basics = basic_candidates(
        bundle,
        engines,
        question.towers,
        precision=question.precision,
        num_threads=question.num_threads or available_threads(),
    )
    if not basics:
        asked = f"precision {question.precision}, " if question.precision else ""
        raise ProviderError(
            f"no engine of {', '.join(question.engines)} can run {bundle.path} with {asked}provider "
            f"{question.provider}. The bundle offers {', '.join(bundle.spec.precisions())}; ask for one of these."
        )
    return sorted(basics, key=lambda each: each.engine != DEFAULT_ENGINE)  # keeps the order within an engine


def _precisions(bundle: Bundle) -> tuple[ComputePrecision, ...]:
    """Return all precisions, most exact first: bfloat16 keeps 8 bits, float16 11."""
    offered = bundle.spec.precisions()
    exact = [precision for precision in offered if precision != "int8"]
    return (*exact, BFLOAT16, *(precision for precision in offered if precision == "int8"))


def _try_once(track: Track, watch: Watch, candidate: Candidate, batch_sizes: Sequence[int]) -> list[Lap]:
    watch.glance()  # with nothing loaded: threads that wait busily for their engine would pass for a neighbour
    return track.run(candidate, batch_sizes)


def _verify(track: Track, candidate: Candidate) -> None:
    with track.load(candidate) as embedder:
        require_golden(embedder)


def _profile(bundle: Bundle, question: Question, best: Contestant) -> Profile:
    candidate, engine = best.candidate, find_engine(best.candidate.engine)
    sizes = {row.kind: row.batch_size for row in best.best(question.goal)}
    return Profile(
        goal=question.goal,
        engine=candidate.engine,
        provider=engine.resolve_provider(question.provider),
        precision=candidate.precision,
        num_threads=candidate.num_threads,
        image_batch_size=sizes.get("image", DEFAULT_BATCH_SIZE),
        text_batch_size=sizes.get("text", DEFAULT_BATCH_SIZE),
        allow_spinning=candidate.allow_spinning,
        space_id=bundle.spec.space_id,
        variant_id=engine.variant_id(bundle.spec, candidate.precision),
        machine=this_machine(),
        measured=best.best(question.goal),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
