"""`mmalign bench`: the latency of a bundle on this machine, stage by stage."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mmalign_runtime.cli.options import BundleArgument, PrecisionOption, ProviderOption, ThreadsOption
from mmalign_runtime.errors import InputError

if TYPE_CHECKING:
    from mmalign_runtime.bench import BenchReport
    from mmalign_runtime.spec import Modality

_STDOUT = "-"
# Enough different items for a fair mean; more would only cost memory.
_MAX_ITEMS = 256


def bench(
    bundle: BundleArgument,
    images: Annotated[
        str | None, typer.Option(help="Images to use, as INPUT of embed; default: the bundle's golden ones.")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(help="Texts to use, as INPUT of embed; default: the bundle's golden ones.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Items in a batch; repeat for several.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Batches measured of each size.")] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write the report as JSON to a file, or to stdout alone.")
    ] = None,
) -> None:
    """Measure how long each stage of embedding takes here."""
    from mmalign_runtime.bench import DEFAULT_BATCH_SIZES, DEFAULT_NUM_ROUNDS, golden_images, golden_texts, run_bench
    from mmalign_runtime.cli.options import as_precision, as_provider
    from mmalign_runtime.embedder import Embedder

    _check_json(json)
    embedder = Embedder.load(
        bundle, provider=as_provider(provider), precision=as_precision(precision), num_threads=threads
    )
    report = run_bench(
        embedder,
        _items(images, "image") if images else golden_images(embedder.bundle),
        cast("list[str]", _items(texts, "text")) if texts else golden_texts(embedder.bundle),
        batch_sizes=batch_size or DEFAULT_BATCH_SIZES,
        num_rounds=rounds or DEFAULT_NUM_ROUNDS,
    )
    _write(report, json)


def print_report(report: BenchReport) -> None:
    """Print the environment card, then a line a stage."""
    from rich.console import Console
    from rich.table import Table

    card, runtime = report.environment, report.environment.runtime
    console = Console(highlight=False)
    console.print(f"{card.date}  {card.cpu}, {runtime.num_threads} threads, {card.platform}", soft_wrap=True)
    console.print(
        f"{runtime.provider} {runtime.variant_id}, onnxruntime {card.onnxruntime}, python {card.python}, "
        f"mmalign-runtime {card.mmalign_runtime}; {report.num_images} images, {report.num_texts} texts",
        soft_wrap=True,
    )
    table = Table("kind", "stage", title="milliseconds a batch", title_justify="left")
    for column in ("batch", "p50", "p90", "p99", "items/s"):
        table.add_column(column, justify="right")
    for row in report.timings:
        times = (f"{ms:.2f}" for ms in (row.p50_ms, row.p90_ms, row.p99_ms))
        table.add_row(
            row.kind, row.stage, str(row.batch_size), *times, f"{row.items_per_s:.1f}", end_section=row.stage == "total"
        )
    console.print(table)


def _items(source: str, kind: Modality) -> list[str | Path | bytes]:
    from mmalign_runtime.bulk.sources import open_source

    return [entry.item for entry in islice(open_source(source, kind), _MAX_ITEMS)]


def _check_json(json: str | None) -> None:
    if json is not None and json != _STDOUT and not Path(json).parent.is_dir():
        raise InputError(f"{json} cannot be written: its folder does not exist. Make it first.")


def _write(report: BenchReport, json: str | None) -> None:
    import msgspec

    line = msgspec.json.encode(report).decode()
    if json == _STDOUT:
        typer.echo(line)
        return
    print_report(report)
    if json is not None:
        Path(json).write_text(line + "\n")
