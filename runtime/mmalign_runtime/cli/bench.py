"""`mmalign bench`: how fast a bundle is on this machine, and whether the machine let itself be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mmalign_runtime.cli.options import BundleArgument, EngineOption, PrecisionOption, ProviderOption, ThreadsOption
from mmalign_runtime.engine.session import DEFAULT_ENGINE
from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.bench import BenchReport
    from mmalign_runtime.spec import Modality

_STDOUT = "-"
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
        typer.Option(min=1, help="Closed loop: how many callers; repeat for several. Default: 1, and one a thread."),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Open loop: requests a second; default: 50%, 80% and 95% of the closed loop's."),
    ] = None,
    arrivals: Annotated[str, typer.Option(help="Open loop: poisson or constant.")] = "poisson",
    seed: Annotated[int, typer.Option(min=0, help="Open loop: what poisson arrivals are drawn from.")] = 0,
    starts: Annotated[int, typer.Option(min=1, help="Cold starts of each tower.")] = 3,
    on_error: Annotated[
        str, typer.Option(help="An item that cannot be embedded: skip (left out and reported) or raise.")
    ] = "skip",
    engine: EngineOption = DEFAULT_ENGINE,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write the report as JSON to a file, or to stdout alone.")
    ] = None,
    charts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw the report as PNG files.", show_default=False)
    ] = None,
) -> None:
    """Measure a bundle here: stages, throughput, latency under load, cold start, memory. About a minute."""
    from mmalign_runtime.bench import BenchPlan, golden_images, golden_texts, run_bench
    from mmalign_runtime.bench.open_loop import Arrivals
    from mmalign_runtime.bench.plan import DEFAULT_BATCH_SIZES, PARTS, Part
    from mmalign_runtime.cli.options import as_modality, as_precision, as_provider, one_of
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.streaming import OnError

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
    policy = cast("OnError", one_of(on_error, get_args(OnError), "--on-error"))
    _check_json(json)
    if charts is not None:
        _check_charts(charts)
    embedder = Embedder.load(
        bundle,
        engine=engine,
        provider=as_provider(provider),
        precision=as_precision(precision),
        num_threads=threads,
        towers=("image", "text") if kind is None else (as_modality(kind),),
    )
    with embedder, _progress() as tell:
        report = run_bench(
            embedder,
            _items(images, "image") if images else golden_images(embedder.bundle),
            cast("list[str]", _items(texts, "text")) if texts else golden_texts(embedder.bundle),
            plan=plan,
            on_error=policy,
            tell=tell,
        )
    _write(report, json, charts)


def _items(source: str, kind: Modality) -> list[str | Path | bytes]:
    from mmalign_runtime.bulk.sources import open_source

    return [entry.item for entry in islice(open_source(source, kind), _MAX_ITEMS)]


def _check_json(json: str | None) -> None:
    if json is not None and json != _STDOUT and not Path(json).parent.is_dir():
        raise InputError(f"{json} cannot be written: its folder does not exist. Make it first.")


def _check_charts(charts: Path) -> None:
    from mmalign_runtime.bench.charts import require_matplotlib

    require_matplotlib()
    if charts.exists() and not charts.is_dir():
        raise InputError(f"{charts} is a file, expected a folder to draw into. Name another with --charts.")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is measured next: in one line that moves on a terminal, a line each elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: console.print(f"{what}", highlight=False)
        return
    with console.status("loading") as status:
        yield lambda what: status.update(f"{what}")


def _write(report: BenchReport, json: str | None, charts: Path | None) -> None:
    import msgspec

    from mmalign_runtime.cli.bench_tables import print_report

    if charts is not None:
        from mmalign_runtime.bench.charts import draw_charts

        drawn = draw_charts(report, charts)
    line = msgspec.json.encode(report).decode()
    if json == _STDOUT:
        typer.echo(line)
        return
    print_report(report)
    if json is not None:
        Path(json).write_text(line + "\n")
    if charts is not None:
        typer.echo(f"charts: {', '.join(map(str, drawn))}")
