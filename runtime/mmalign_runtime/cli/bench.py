"""`mmalign bench`: how fast a bundle is on this machine, and whether the machine let itself be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from mmalign_runtime.cli import bench_options as opt
from mmalign_runtime.cli.bench_output import telling, write_report
from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, one_of
from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.bench import BenchPlan


@takes_config
def bench(
    bundle: BundleArgument,
    images: opt.ImagesOption = None,
    texts: opt.TextsOption = None,
    kind: opt.KindOption = None,
    only: opt.OnlyOption = None,
    seconds: opt.SecondsOption = 40.0,
    batch_size: opt.BatchSizeOption = None,
    rounds: opt.RoundsOption = None,
    callers: opt.CallersOption = None,
    starts: opt.StartsOption = 3,
    on_error: opt.OnErrorOption = "skip",
    *,
    asked: Loading,
    goal: opt.GoalOption = None,
    save_profile: opt.SaveProfileOption = None,
    even_if_noisy: opt.EvenIfNoisyOption = False,
    clipping: opt.ClippingOption = False,
    json: opt.ReportOption = None,
) -> None:
    """Measure a bundle here in about a minute: stages, throughput, latency of callers, cold start, memory.

    With --engine all, --goal or --save-profile: compare what could run it here, and recommend.
    """
    request = opt.request(bundle, asked, images, texts, kind, on_error, json)
    of_one = {"--only": only, "--rounds": rounds, "--callers": callers}
    if clipping:
        from mmalign_runtime.cli.bench_clipping import bench_clipping

        _refuse(of_one | {"--profile": asked.profile})
        bench_clipping(request, is_named=kind is not None)
    elif asked.fields.get("engine") == "all" or goal is not None or save_profile is not None:
        from mmalign_runtime.cli.bench_compare import bench_compare

        _refuse(of_one | {"--profile": asked.profile})
        bench_compare(request, goal, tuple(batch_size or ()), save_profile, even_if_noisy=even_if_noisy)
    else:
        _measure(request, _plan(only, batch_size, seconds, rounds, callers, starts))


def _plan(
    only: list[str] | None,
    batch_size: list[int] | None,
    seconds: float,
    rounds: int | None,
    callers: list[int] | None,
    starts: int,
) -> BenchPlan:
    from mmalign_runtime.bench.run import DEFAULT_BATCH_SIZES, PARTS, BenchPlan, Part

    return BenchPlan(
        parts=tuple(cast("Part", one_of(word, PARTS, "--only")) for word in only) if only else PARTS,
        batch_sizes=tuple(batch_size or DEFAULT_BATCH_SIZES),
        seconds=seconds,
        num_rounds=rounds,
        num_callers=tuple(callers) if callers else None,
        num_starts=starts,
    )


def _measure(request: opt.Request, plan: BenchPlan) -> None:
    from mmalign_runtime.bench import run_bench
    from mmalign_runtime.cli.bench_tables import print_report

    with request.asked.load(request.bundle, towers=request.towers) as embedder, telling() as tell:
        images, texts = request.items(embedder.bundle)
        report = run_bench(embedder, images, texts, plan=plan, on_error=request.on_error, tell=tell)
    write_report(report, request.json, print_report)


def _refuse(given: Mapping[str, object]) -> None:
    named = [name for name, value in given.items() if value]
    if named:
        raise InputError(
            f"{' and '.join(named)} belong to measuring the speed of one engine. Leave them out, or leave out "
            "--engine all, --goal, --save-profile and --clipping."
        )
