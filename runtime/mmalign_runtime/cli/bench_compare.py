"""`mmalign bench --engine all`: what could run a bundle here, compared; the recommendation first, then the figures.

Exit code 1 when nothing can be recommended: the machine was noisy, or nothing passed `verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import msgspec
import typer

from mmalign_runtime.cli.bench_output import STDOUT, telling, write_report
from mmalign_runtime.cli.options import one_of
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import ComputePrecision
from mmalign_runtime.places import check_place
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError

if TYPE_CHECKING:
    from rich.table import Table

    from mmalign_runtime.bench.compare.report import Comparison, Contestant
    from mmalign_runtime.image import ImageItem
    from mmalign_runtime.profile import Goal

EXIT_NOTHING_RECOMMENDED = 1
_ALL = "all"
_ADVICE = {
    "latency": "one item at a time, milliseconds (p50)",
    "throughput": "items a second, at the best batch size tried",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked to compare. None: the bundle's golden items."""

    images: Sequence[ImageItem] | None
    texts: Sequence[str] | None
    engine: str
    goal: str | None
    provider: Provider
    precision: ComputePrecision | None
    num_threads: int | None
    towers: tuple[Modality, ...]
    batch_sizes: tuple[int, ...]
    even_if_noisy: bool
    on_error: OnError


def compare_engines(bundle: Path, asked: Asked, *, save_profile: Path | None, json: str | None) -> None:
    """Compare, print, and save the profile of what is recommended."""
    from mmalign_runtime.bench import golden_images, golden_texts
    from mmalign_runtime.bench.compare.run import Question, compare
    from mmalign_runtime.bench.plan import DEFAULT_BATCH_SIZES
    from mmalign_runtime.bundle import open_bundle
    from mmalign_runtime.engine.engines import installed_engines
    from mmalign_runtime.profile import Goal
    from mmalign_runtime.profile import save_profile as write_profile

    if save_profile is not None:
        check_place(save_profile)
    question = Question(
        goal=cast("Goal", one_of(asked.goal or "latency", get_args(Goal), "--goal")),
        engines=installed_engines() if asked.engine == _ALL else (asked.engine,),
        provider=asked.provider,
        precision=asked.precision,
        num_threads=asked.num_threads,
        towers=asked.towers,
        batch_sizes=asked.batch_sizes or DEFAULT_BATCH_SIZES,
        even_if_noisy=asked.even_if_noisy,
    )
    opened = open_bundle(bundle)
    with telling() as tell:
        found = compare(
            opened,
            question,
            golden_images(opened) if asked.images is None else asked.images,
            golden_texts(opened) if asked.texts is None else asked.texts,
            on_error=asked.on_error,
            tell=tell,
        )
    write_report(found, json, print_comparison)
    if found.profile is None:
        raise typer.Exit(EXIT_NOTHING_RECOMMENDED)
    if save_profile is not None:
        write_profile(save_profile, found.profile)
        if json != STDOUT:
            typer.echo(f'saved: {save_profile}, for Embedder.load("{bundle}", profile="{save_profile}")')


def print_comparison(found: Comparison) -> None:
    """Print what to take and what it gains, then everyone's figures, then who was refused and why."""
    from rich.console import Console
    from rich.markup import escape

    from mmalign_runtime.bench.conclusions import verdict

    console = Console(highlight=False)
    card = found.environment
    words = f"{card.date}  {card.cpu}, mmalign-runtime {card.mmalign_runtime}, {found.seconds:.0f} s"
    console.print(escape(words), style="dim")
    console.print(verdict(found.quietness), style="green" if found.quietness.is_quiet else "bold yellow")
    console.print(escape(_advice(found)), style="bold")
    if found.skipped:
        console.print(f"[yellow]{len(found.skipped)} items left out, which cannot be embedded[/]")
    console.print()
    console.print(f"[bold]for {found.goal}: {_ADVICE[found.goal]}[/]")
    console.print(_table(found))
    for refused in found.refused:
        console.print(f"[red]refused[/]: {escape(f'{refused.candidate}: {refused.reason}')}")


def _advice(found: Comparison) -> str:
    if found.recommended is None:
        if not found.quietness.is_quiet:
            return "Nothing is recommended on a noisy machine (--even-if-noisy recommends all the same)."
        return "Nothing is recommended: no candidate passed `mmalign verify` here."
    best = found.of(found.recommended)
    said = f"For {found.goal}: {found.recommended}"
    if found.goal == "throughput":
        said += ", " + ", ".join(f"batches of {row.batch_size} {row.kind}s" for row in best.best(found.goal))
    said += "."
    standing = next((each for each in found.contestants if each.candidate == found.default), None)
    if standing is not None and found.recommended != found.default:
        said += f" {best.score(found.goal) / standing.score(found.goal):.2f}x as fast as the default ({found.default})."
    elif standing is not None:
        said += " That is the default."
    if found.recommended.allow_spinning:
        said += " Its threads wait busily: for a machine that does nothing else."
    return said


def _table(found: Comparison) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    kinds = list(dict.fromkeys(row.kind for each in found.contestants for row in each.measured))
    of_batch = " (batch)" if found.goal == "throughput" else ""
    for column in (*(f"{kind}s{of_batch}" for kind in kinds), "speed", "verified"):
        table.add_column(column, justify="right")
    best = max((each.score(found.goal) for each in found.contestants), default=1.0)
    for each in found.contestants:
        speed = f"{each.score(found.goal) / best:.2f}x"
        verified = "yes" if each.is_verified else "-"
        style = "bold" if each.candidate == found.recommended else None
        table.add_row(str(each.candidate), *_figures(each, found.goal), speed, verified, style=style)
    return table


def _figures(each: Contestant, goal: Goal) -> list[str]:
    if goal == "latency":
        return [f"{row.p50_ms:.2f}" for row in each.best(goal)]
    return [f"{row.items_per_s:.0f} ({row.batch_size})" for row in each.best(goal)]
