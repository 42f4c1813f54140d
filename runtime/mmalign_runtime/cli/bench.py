"""`mmalign bench`: how fast a bundle is on this machine, and whether the machine let itself be measured.

Exit code 1 when engines are compared and nothing can be recommended: the machine was noisy, or nothing passed `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

from mmalign_runtime.cli import bench_options as opt
from mmalign_runtime.cli.bench_options import STDOUT, telling, write_report
from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, one_of
from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place

if TYPE_CHECKING:
    from mmalign_runtime.bench.run import BenchPlan

EXIT_NOTHING_RECOMMENDED = 1


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
        _refuse(of_one | {"--profile": asked.profile})
        _clipping(request, is_named=kind is not None)
    elif asked.fields.get("engine") == "all" or goal is not None or save_profile is not None:
        _refuse(of_one | {"--profile": asked.profile})
        _compare(request, goal, tuple(batch_size or ()), save_profile, even_if_noisy=even_if_noisy)
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
    from mmalign_runtime.bench.run import run_bench

    with request.asked.load(request.bundle, towers=request.towers) as embedder, telling() as tell:
        images, texts = request.items(embedder.bundle)
        report = run_bench(embedder, images, texts, plan=plan, on_error=request.on_error, tell=tell)
    from mmalign_runtime.cli.bench_tables import print_report  # only now: its imports are no memory of the towers

    write_report(report, request.json, print_report)


def _compare(
    request: opt.Request,
    goal: str | None,
    batch_sizes: tuple[int, ...],
    save_profile: Path | None,
    *,
    even_if_noisy: bool,
) -> None:
    from mmalign_runtime.bench.compare import Question, compare
    from mmalign_runtime.bench.run import DEFAULT_BATCH_SIZES
    from mmalign_runtime.bundle import open_bundle
    from mmalign_runtime.cli.bench_tables import print_comparison
    from mmalign_runtime.profile import Goal
    from mmalign_runtime.profile import save_profile as write_profile

    if save_profile is not None:
        check_place(save_profile)
    question = Question(
        goal=cast("Goal", one_of(goal or "latency", get_args(Goal), "--goal")),
        fixed=request.asked.fields,
        towers=request.towers,
        batch_sizes=batch_sizes or DEFAULT_BATCH_SIZES,
        even_if_noisy=even_if_noisy,
    )
    bundle = open_bundle(request.bundle)
    with telling() as tell:
        images, texts = request.items(bundle)
        found = compare(bundle, question, images, texts, on_error=request.on_error, tell=tell)
    write_report(found, request.json, print_comparison)
    if found.profile is None:
        raise typer.Exit(EXIT_NOTHING_RECOMMENDED)
    if save_profile is not None:
        write_profile(save_profile, found.profile)
        if request.json != STDOUT:
            typer.echo(f'saved: {save_profile}, for Embedder.load("{request.bundle}", profile="{save_profile}")')


def _clipping(request: opt.Request, *, is_named: bool) -> None:
    """Count what the items clip, and print it. A tower that was named is held to having ranges, others are left out."""
    from mmalign_runtime.bundle import open_bundle
    from mmalign_runtime.cli.bench_tables import print_clipping
    from mmalign_runtime.clipping import load_clipping
    from mmalign_runtime.embedder import Embedder

    towers = request.towers if is_named else tuple(load_clipping(open_bundle(request.bundle)))
    with Embedder.load(request.bundle, precision="int8", provider="cpu", towers=towers, lazy=True) as embedder:
        images, texts = request.items(embedder.bundle)
        found = embedder.clipping(images=images if "image" in towers else (), texts=texts if "text" in towers else ())
    write_report(found, request.json, print_clipping)


def _refuse(given: Mapping[str, object]) -> None:
    named = [name for name, value in given.items() if value]
    if named:
        raise InputError(
            f"{' and '.join(named)} belong to measuring the speed of one engine. Leave them out, or leave out "
            "--engine all, --goal, --save-profile and --clipping."
        )
