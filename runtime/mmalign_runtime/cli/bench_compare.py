"""`mmalign bench --engine all`: what could run a bundle here, compared; the recommendation first, then the figures.

Exit code 1 when nothing can be recommended: the machine was noisy, or nothing passed `verify`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

from mmalign_runtime.cli.bench_options import Request
from mmalign_runtime.cli.bench_output import STDOUT, telling, write_report
from mmalign_runtime.cli.options import one_of
from mmalign_runtime.places import check_place

if TYPE_CHECKING:
    from rich.table import Table

    from mmalign_runtime.bench.comparison import Candidate, Comparison
    from mmalign_runtime.profile import Goal

EXIT_NOTHING_RECOMMENDED = 1
_ADVICE = {
    "latency": "one item at a time, milliseconds (p50)",
    "throughput": "items a second, at the best batch size tried",
}


def bench_compare(
    request: Request, goal: str | None, batch_sizes: tuple[int, ...], save_profile: Path | None, *, even_if_noisy: bool
) -> None:
    """Compare, print, and save the profile of what is recommended."""
    from mmalign_runtime.bench.compare import Question, compare
    from mmalign_runtime.bench.run import DEFAULT_BATCH_SIZES
    from mmalign_runtime.bundle import open_bundle
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
        console.print(f"[red]refused[/]: {escape(f'{refused.config}: {refused.reason}')}")


def _advice(found: Comparison) -> str:
    best = None if found.recommended is None else found.of(found.recommended)
    if best is None:
        if not found.quietness.is_quiet:
            return "Nothing is recommended on a noisy machine (--even-if-noisy recommends all the same)."
        return "Nothing is recommended: no candidate passed `mmalign verify` here."
    said = f"For {found.goal}: {best.config}"
    if found.goal == "throughput":
        said += ", " + ", ".join(f"batches of {row.batch_size} {row.kind}s" for row in best.best(found.goal))
    said += "."
    standing = found.of(found.default)
    if best.config == found.default:
        said += " That is the default."
    elif standing is not None:
        said += f" {best.score(found.goal) / standing.score(found.goal):.2f}x as fast as the default ({found.default})."
    if best.config.allow_spinning:
        said += " Its threads wait busily: for a machine that does nothing else."
    return said


def _table(found: Comparison) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    kinds = list(dict.fromkeys(row.kind for each in found.candidates for row in each.measured))
    of_batch = " (batch)" if found.goal == "throughput" else ""
    for column in (*(f"{kind}s{of_batch}" for kind in kinds), "speed"):
        table.add_column(column, justify="right")
    best = max((each.score(found.goal) for each in found.candidates), default=1.0)
    for each in found.candidates:
        speed = f"{each.score(found.goal) / best:.2f}x"
        style = "bold" if each.config == found.recommended else None
        table.add_row(str(each.config), *_figures(each, found.goal), speed, style=style)
    return table


def _figures(each: Candidate, goal: Goal) -> list[str]:
    if goal == "latency":
        return [f"{row.p50_ms:.2f}" for row in each.best(goal)]
    return [f"{row.items_per_s:.0f} ({row.batch_size})" for row in each.best(goal)]
