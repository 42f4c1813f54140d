"""`mmalign bench`: how fast a bundle is on this machine, and whether the machine let itself be measured."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mmalign_runtime.cli.bench_output import STDOUT, telling, write_report
from mmalign_runtime.cli.loading import CacheOption, ThreadsOption
from mmalign_runtime.cli.options import BundleArgument
from mmalign_runtime.engine.session import DEFAULT_ENGINE
from mmalign_runtime.errors import InputError
from mmalign_runtime.places import check_place

if TYPE_CHECKING:
    from mmalign_runtime.bench import BenchReport
    from mmalign_runtime.spec import Modality

ALL_ENGINES = "all"
_LOAD, _COMPARE = "Callers and arrivals", "Comparing engines"
# Enough different items for a fair mean; more would cost time before anything is measured.
_MAX_ITEMS = 128


def bench(
    bundle: BundleArgument,
    images: Annotated[
        str | None, typer.Option(help="Images to use, as INPUT of embed; default: the bundle's golden ones.")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(help="Texts to use, as INPUT of embed; default: the bundle's golden ones.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="image or text: that tower alone.", show_default=False)] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A part: stages, bulk, closed-loop, open-loop, cold-start; repeat for several.", show_default=False
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="About how long to measure, cold starts on top; 10 for a quick look.")
    ] = 40.0,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Items in a batch; repeat for several.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Stages and bulk: this many batches of each size, not seconds.")
    ] = None,
    callers: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Closed loop: how many callers; repeat for several. Default: 1, and one a thread.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            help="Open loop: requests a second; default: 50%, 80% and 95% of the closed loop's.", rich_help_panel=_LOAD
        ),
    ] = None,
    arrivals: Annotated[str, typer.Option(help="Open loop: poisson or constant.", rich_help_panel=_LOAD)] = "poisson",
    seed: Annotated[
        int, typer.Option(min=0, help="Open loop: what poisson arrivals are drawn from.", rich_help_panel=_LOAD)
    ] = 0,
    starts: Annotated[int, typer.Option(min=1, help="Cold starts of each tower.")] = 3,
    on_error: Annotated[
        str, typer.Option(help="An item that cannot be embedded: skip (left out and reported) or raise.")
    ] = "skip",
    engine: Annotated[
        str, typer.Option(help="onnxruntime, openvino or aotinductor; all: compare what is installed, and recommend.")
    ] = DEFAULT_ENGINE,
    goal: Annotated[
        str | None,
        typer.Option(
            help="Compare engines, precisions and threads for latency or throughput; default: latency.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    save_profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what is recommended, for `Embedder.load(profile=)`.",
            show_default=False,
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    even_if_noisy: Annotated[
        bool, typer.Option("--even-if-noisy", help="Recommend on a noisy machine too.", rich_help_panel=_COMPARE)
    ] = False,
    provider: Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (default), fp16, int8 or bf16; compared: all there are, unless one is named."),
    ] = None,
    threads: ThreadsOption = None,
    cache: CacheOption = False,
    clipping: Annotated[
        bool, typer.Option("--clipping", help="Count instead how often the items leave the int8 towers' ranges.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write the report as JSON to a file, or to stdout alone.")
    ] = None,
    charts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw the report as PNG files.", show_default=False)
    ] = None,
) -> None:
    """Measure a bundle here in about a minute: stages, throughput, latency under load, cold start, memory.

    With --engine all, --goal or --save-profile: compare what could run it here, and recommend.
    """
    from mmalign_runtime.bench import BenchPlan, golden_images, golden_texts, run_bench
    from mmalign_runtime.bench.open_loop import Arrivals
    from mmalign_runtime.bench.plan import DEFAULT_BATCH_SIZES, PARTS, Part
    from mmalign_runtime.cli.bench_tables import print_report
    from mmalign_runtime.cli.options import as_modality, as_precision, as_provider, one_of
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.streaming import OnError

    policy = cast("OnError", one_of(on_error, get_args(OnError), "--on-error"))
    towers: tuple[Modality, ...] = ("image", "text") if kind is None else (as_modality(kind),)
    _check_json(json)
    if clipping:
        from mmalign_runtime.bundle import open_bundle
        from mmalign_runtime.cli.bench_clipping import print_clipping
        from mmalign_runtime.clipping import load_clipping

        _refuse_measuring_options(only, rounds, callers, rate, charts)
        if kind is None:  # what can be clipped; a tower named is held to it
            towers = tuple(load_clipping(open_bundle(bundle)))
        with Embedder.load(bundle, precision="int8", provider="cpu", towers=towers, lazy=True) as embedder:
            pictures = _items(images, "image") if images else golden_images(embedder.bundle)
            words = cast("list[str]", _items(texts, "text")) if texts else golden_texts(embedder.bundle)
            found = embedder.clipping(
                images=pictures if "image" in towers else (), texts=words if "text" in towers else ()
            )
        write_report(found, json, print_clipping)
        return
    if engine == ALL_ENGINES or goal is not None or save_profile is not None:
        from mmalign_runtime.cli.bench_compare import Asked, compare_engines

        _refuse_measuring_options(only, rounds, callers, rate, charts)
        compare_engines(
            bundle,
            Asked(
                images=None if images is None else _items(images, "image"),
                texts=None if texts is None else cast("list[str]", _items(texts, "text")),
                engine=engine,
                goal=goal,
                provider=as_provider(provider),
                precision=None if precision is None else as_precision(precision),
                num_threads=threads,
                towers=towers,
                batch_sizes=tuple(batch_size or ()),
                even_if_noisy=even_if_noisy,
                on_error=policy,
            ),
            save_profile=save_profile,
            json=json,
        )
        return
    plan = BenchPlan(
        parts=tuple(cast("Part", one_of(word, PARTS, "--only")) for word in only) if only else PARTS,
        batch_sizes=tuple(batch_size or DEFAULT_BATCH_SIZES),
        seconds=seconds,
        num_rounds=rounds,
        num_callers=tuple(callers) if callers else None,
        rates_per_s=tuple(rate or ()),
        arrivals=cast("Arrivals", one_of(arrivals, get_args(Arrivals), "--arrivals")),
        seed=seed,
        num_starts=starts,
    )
    plan.check()
    if charts is not None:
        _check_charts(charts)
    with (
        Embedder.load(
            bundle,
            engine=engine,
            provider=as_provider(provider),
            precision=as_precision(precision or "fp32"),
            num_threads=threads,
            towers=towers,
            cache=cache,
        ) as embedder,
        telling() as tell,
    ):
        report = run_bench(
            embedder,
            _items(images, "image") if images else golden_images(embedder.bundle),
            cast("list[str]", _items(texts, "text")) if texts else golden_texts(embedder.bundle),
            plan=plan,
            on_error=policy,
            tell=tell,
        )
    drawn = [] if charts is None else _draw(report, charts)
    write_report(report, json, print_report)
    if drawn and json != STDOUT:
        typer.echo(f"charts: {', '.join(map(str, drawn))}")


def _items(source: str, kind: Modality) -> list[str | Path | bytes]:
    from mmalign_runtime.bulk.sources import open_source

    return [entry.item for entry in islice(open_source(source, kind), _MAX_ITEMS)]


def _check_json(json: str | None) -> None:
    if json is not None and json != STDOUT:
        check_place(Path(json))


def _check_charts(charts: Path) -> None:
    from mmalign_runtime.bench.charts import require_matplotlib

    require_matplotlib()
    if charts.exists() and not charts.is_dir():
        raise InputError(f"{charts} is a file, expected a folder to draw into. Name another with --charts.")
    check_place(charts / "chart.png")


def _draw(report: BenchReport, folder: Path) -> list[Path]:
    from mmalign_runtime.bench.charts import draw_charts

    return draw_charts(report, folder)


def _refuse_measuring_options(
    only: list[str] | None,
    rounds: int | None,
    callers: list[int] | None,
    rate: list[float] | None,
    charts: Path | None,
) -> None:
    given = {"--only": only, "--rounds": rounds, "--callers": callers, "--rate": rate, "--charts": charts}
    named = [name for name, value in given.items() if value]
    if named:
        raise InputError(
            f"{' and '.join(named)} belong to measuring the speed of one engine. Leave them out, or leave out "
            "--engine all, --goal, --save-profile and --clipping."
        )
